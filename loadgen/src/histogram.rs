//! Histograms: how they are made, packed and summarised.

use base64::{Engine, engine::general_purpose::STANDARD};
use hdrhistogram::{
    Histogram,
    serialization::{
        DeserializeError, Deserializer, Serializer, V2DeflateSerializer, V2Serializer,
    },
};

use crate::record::{Latency, ScheduleLag};

/// Latencies in nanoseconds.
pub type Latencies = Histogram<u64>;

/// One hour: no run waits longer for a reply.
const MOST_NS: u64 = 3_600_000_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

/// An empty histogram with three significant digits. It grows to the largest value it has seen: one
/// for up to an hour takes 264 KiB, and fifty shards have a few of them each.
pub fn new() -> Latencies {
    Histogram::new(SIGNIFICANT_DIGITS).expect("a constant that the crate accepts")
}

/// Records a time; more than an hour counts as an hour.
#[inline]
pub fn record(histogram: &mut Latencies, ns: u64) {
    record_many(histogram, ns, 1);
}

/// [Records](record) the same time `count` times.
#[inline]
pub fn record_many(histogram: &mut Latencies, ns: u64, count: u64) {
    // Fails only where an index does not fit a `usize`.
    let _ = histogram.record_n(ns.min(MOST_NS), count);
}

/// Packs a histogram for keeping (V2, uncompressed: a few bytes per distinct value).
pub fn pack(histogram: &Latencies) -> Vec<u8> {
    let mut packed = Vec::new();
    V2Serializer::new()
        .serialize(histogram, &mut packed)
        .expect("a histogram can be serialised into memory");
    packed
}

/// Adds a [`pack`]ed histogram of our own.
pub fn add_packed(total: &mut Latencies, packed: &[u8]) {
    let part = deserialize(packed).expect("it was packed by this program");
    merge(total, &part);
}

/// Adds a histogram of our own.
pub fn merge(total: &mut Latencies, part: &Latencies) {
    total
        .add(part)
        .expect("a histogram of ours grows to what is added");
}

/// As text, [packed](pack), deflated: nothing is lost on the way between processes.
pub fn to_text(histogram: &Latencies) -> String {
    let mut packed = Vec::new();
    V2DeflateSerializer::new()
        .serialize(histogram, &mut packed)
        .expect("a histogram can be serialised into memory");
    STANDARD.encode(packed)
}

/// What [`to_text`] made.
///
/// # Errors
/// When it is no histogram; a sentence.
pub fn from_text(text: &str) -> Result<Latencies, String> {
    let packed = STANDARD.decode(text).map_err(|error| error.to_string())?;
    deserialize(&packed).map_err(|error| error.to_string())
}

/// Figures and the whole histogram; `None` when it is empty.
pub fn summarise(histogram: &Latencies) -> Option<Latency> {
    if histogram.is_empty() {
        return None;
    }
    let at = |quantile| histogram.value_at_quantile(quantile);
    Some(Latency {
        count: histogram.len(),
        min_ns: histogram.min(),
        mean_ns: histogram.mean(),
        p50_ns: at(0.5),
        p90_ns: at(0.9),
        p99_ns: at(0.99),
        p99_9_ns: at(0.999),
        p99_99_ns: at(0.9999),
        max_ns: histogram.max(),
        histogram_v2_deflate_base64: to_text(&of_an_hour(histogram)),
    })
}

/// The same with room for an hour: what is equal reads equal, however its parts have grown.
fn of_an_hour(histogram: &Latencies) -> Latencies {
    let mut whole = Histogram::new_with_bounds(1, MOST_NS, SIGNIFICANT_DIGITS)
        .expect("the bounds are constants that the crate accepts");
    merge(&mut whole, histogram);
    whole
}

/// The histogram of a record; `None` when it has none or it is damaged.
pub fn unpack(histogram_v2_deflate_base64: &str) -> Option<Latencies> {
    from_text(histogram_v2_deflate_base64).ok()
}

fn deserialize(mut packed: &[u8]) -> Result<Latencies, DeserializeError> {
    let mut histogram: Latencies = Deserializer::new().deserialize(&mut packed)?;
    histogram.auto(true);
    Ok(histogram)
}

/// The figures of a schedule lag; `None` when nothing was scheduled.
pub fn lag(histogram: &Latencies) -> Option<ScheduleLag> {
    (!histogram.is_empty()).then(|| ScheduleLag {
        count: histogram.len(),
        p50_ns: histogram.value_at_quantile(0.5),
        p99_ns: histogram.value_at_quantile(0.99),
        max_ns: histogram.max(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_loses_nothing() {
        let mut one = new();
        for value in [1, 1_000, 123_456_789, MOST_NS] {
            record(&mut one, value);
        }
        let mut total = new();
        add_packed(&mut total, &pack(&one));
        add_packed(&mut total, &pack(&one));
        assert_eq!(total.len(), 8);
        assert_eq!(total.max(), one.max());
        assert!(pack(&new()).len() < 100);
    }

    #[test]
    fn the_record_holds_the_whole_histogram() {
        let mut histogram = new();
        (0..999).for_each(|_| record(&mut histogram, 1_000_000));
        record(&mut histogram, 50_000_000);
        let latency = summarise(&histogram).unwrap();
        assert_eq!(latency.count, 1_000);
        assert!((999_000..1_001_000).contains(&latency.p99_ns));
        assert!(latency.max_ns >= 50_000_000);
        assert!(latency.supports(0.9) && !latency.supports(0.99));
        let back = unpack(&latency.histogram_v2_deflate_base64).unwrap();
        assert_eq!(back, of_an_hour(&histogram));
        assert_eq!(unpack("damaged"), None);
        assert_eq!(summarise(&new()), None);
    }
}
