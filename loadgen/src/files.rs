//! The files a run writes: record, percentile distribution, histogram log.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use hdrhistogram::serialization::{
    V2DeflateSerializer,
    interval_log::{IntervalLogWriterBuilder, IntervalLogWriterError, Tag},
};

use crate::{
    assemble::{Interval, RunOutput},
    config::Files,
    histogram::{self, Latencies},
};

/// Files opened before the run, so that a wrong path does not cost one.
#[derive(Debug)]
pub struct OpenFiles {
    json: Option<OpenFile>,
    hgrm: Option<OpenFile>,
    hlog: Option<OpenFile>,
}

#[derive(Debug)]
struct OpenFile {
    path: PathBuf,
    file: File,
}

impl OpenFiles {
    /// Opens what was asked for; what the files held stays until the run has ended.
    ///
    /// # Errors
    /// A sentence with the path.
    pub fn open(files: &Files) -> Result<Self, String> {
        Ok(Self {
            json: open(files.json.as_deref())?,
            hgrm: open(files.hgrm.as_deref())?,
            hlog: open(files.hlog.as_deref())?,
        })
    }

    /// Writes all of them.
    ///
    /// # Errors
    /// A sentence with the path, for the first that cannot be written.
    pub fn write(self, run: &RunOutput) -> Result<(), String> {
        write(self.json, || json(run))?;
        write(self.hgrm, || hgrm(&run.main))?;
        write(self.hlog, || hlog(run))
    }
}

fn open(path: Option<&Path>) -> Result<Option<OpenFile>, String> {
    let Some(path) = path else { return Ok(None) };
    let file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .open(path)
        .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    Ok(Some(OpenFile {
        path: path.to_owned(),
        file,
    }))
}

fn write(
    target: Option<OpenFile>,
    content: impl FnOnce() -> io::Result<Vec<u8>>,
) -> Result<(), String> {
    let Some(OpenFile { path, mut file }) = target else {
        return Ok(());
    };
    content()
        .and_then(|content| {
            // A pipe or a device cannot be cut, and need not be.
            if file.metadata()?.is_file() {
                file.set_len(0)?;
            }
            file.write_all(&content)?;
            file.flush()
        })
        .map_err(|error| format!("cannot write {}: {error}", path.display()))
}

/// The record as JSON, with a newline.
///
/// # Errors
/// Never in practice: the record has no maps with odd keys.
pub fn json(run: &RunOutput) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(&run.record)?;
    text.push(b'\n');
    Ok(text)
}

/// The percentile distribution in HdrHistogram's text format: four columns, values in ms.
fn hgrm(latencies: &Latencies) -> io::Result<Vec<u8>> {
    /// Steps per halving of the distance to 100%, as HdrHistogram's own tools use.
    const TICKS: u32 = 5;
    let ms = |ns: f64| ns / 1e6;
    let mut text = Vec::new();
    writeln!(
        text,
        "{:>12} {:>14} {:>10} {:>14}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    )?;
    let mut count = 0;
    for step in latencies.iter_quantiles(TICKS) {
        count += step.count_since_last_iteration();
        let quantile = step.quantile_iterated_to();
        let odds = if quantile < 1.0 {
            format!("{:.2}", 1.0 / (1.0 - quantile))
        } else {
            "inf".into()
        };
        writeln!(
            text,
            "{:12.6} {quantile:2.12} {count:10} {odds:>14}",
            ms(step.value_iterated_to() as f64)
        )?;
    }
    writeln!(
        text,
        "#[Mean    = {:12.6}, StdDeviation   = {:12.6}]\n#[Max     = {:12.6}, Total count    = {:12}]\n#[Buckets = {:12}, SubBuckets     = {:12}]",
        ms(latencies.mean()),
        ms(latencies.stdev()),
        ms(latencies.max() as f64),
        latencies.len(),
        latencies.buckets(),
        2048
    )?;
    Ok(text)
}

fn hlog(run: &RunOutput) -> io::Result<Vec<u8>> {
    let record = &run.record;
    let window = Duration::from_nanos(
        record
            .window_end_monotonic_ns
            .saturating_sub(record.window_start_monotonic_ns),
    );
    let comment = format!("[loadgen {}]", run.record.loadgen_version);
    histogram_log(
        &comment,
        (run.window_start, window),
        &run.intervals,
        [("actual", &run.actual), ("others", &run.others)],
    )
}

/// The histogram log, version 1.3: the intervals, one per second or slice, then those of the whole
/// window that there are, each under its tag: in an open loop from the actual send, and, with hot
/// connections, of the others. Everything is in ns.
fn histogram_log(
    comment: &str,
    (start, window): (SystemTime, Duration),
    intervals: &[Interval],
    of_window: [(&str, &Option<Latencies>); 2],
) -> io::Result<Vec<u8>> {
    const LEGEND: &str = "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n";
    let mut text = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    IntervalLogWriterBuilder::new()
        .add_comment("[Histogram log format version 1.3]")
        .add_comment(comment)
        .with_start_time(start)
        .with_base_time(start)
        .begin_log_with(&mut text, &mut serializer)?;
    text.extend_from_slice(LEGEND.as_bytes());
    // A second writer behind the legend, which the crate does not write.
    let mut log = IntervalLogWriterBuilder::new().begin_log_with(&mut text, &mut serializer)?;
    let open_loop = of_window.iter().any(|(_, latencies)| latencies.is_some());
    for interval in intervals {
        let tag = open_loop.then(|| Tag::new("intended")).flatten();
        let [begin, length] = [interval.start_ns, interval.length_ns].map(Duration::from_nanos);
        let mut latencies = histogram::new();
        histogram::add_packed(&mut latencies, &interval.latencies);
        log.write_histogram(&latencies, begin, length, tag)
            .map_err(log_error)?;
    }
    for (tag, latencies) in of_window {
        if let Some(latencies) = latencies {
            log.write_histogram(latencies, Duration::ZERO, window, Tag::new(tag))
                .map_err(log_error)?;
        }
    }
    Ok(text)
}

fn log_error<E: std::error::Error + Send + Sync + 'static>(
    error: IntervalLogWriterError<E>,
) -> io::Error {
    match error {
        IntervalLogWriterError::IoError(error) => error,
        IntervalLogWriterError::SerializeError(error) => io::Error::other(error),
    }
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;

    #[test]
    fn hgrm_has_four_columns_in_ms() {
        let mut latencies = histogram::new();
        for value in 1..=1_000 {
            histogram::record(&mut latencies, value * 1_000_000);
        }
        let text = String::from_utf8(hgrm(&latencies).unwrap()).unwrap();
        let rows: Vec<&str> = text
            .lines()
            .skip(2)
            .filter(|line| !line.starts_with('#'))
            .collect();
        assert!(rows.len() > 10);
        for row in &rows {
            assert_eq!(row.split_whitespace().count(), 4, "{row}");
        }
        let last: Vec<&str> = rows[rows.len() - 1].split_whitespace().collect();
        let max: f64 = last[0].parse().unwrap();
        assert!((1_000.0..1_001.0).contains(&max), "{max}");
        assert_eq!(&last[1..], ["1.000000000000", "1000", "inf"]);
    }

    /// What HdrHistogram's plotter reads: the rows between the heading and the comments, values at
    /// their percentiles.
    #[test]
    fn hgrm_reads_back_as_the_percentiles_that_were_recorded() {
        let mut latencies = histogram::new();
        for value in 1..=100_000_u64 {
            histogram::record(&mut latencies, value * value);
        }
        let text = String::from_utf8(hgrm(&latencies).unwrap()).unwrap();
        assert!(text.starts_with("       Value     Percentile TotalCount 1/(1-Percentile)\n\n"));
        let mut last = (0.0, 0.0, 0);
        for row in text.lines().skip(2).filter(|line| !line.starts_with('#')) {
            let cells: Vec<&str> = row.split_whitespace().collect();
            let (ms, quantile): (f64, f64) = (cells[0].parse().unwrap(), cells[1].parse().unwrap());
            let count: u64 = cells[2].parse().unwrap();
            let recorded = latencies.value_at_quantile(quantile) as f64 / 1e6;
            assert!((ms - recorded).abs() <= recorded * 0.001 + 1e-6, "{row}");
            assert!(
                ms >= last.0 && quantile >= last.1 && count >= last.2,
                "{row}"
            );
            last = (ms, quantile, count);
        }
        assert_eq!((last.1, last.2), (1.0, latencies.len()));
        let comments: Vec<&str> = text.lines().filter(|line| line.starts_with("#[")).collect();
        assert_eq!(comments.len(), 3, "{text}");
        assert!(
            comments[1].ends_with("Total count    =       100000]"),
            "{}",
            comments[1]
        );
    }

    #[test]
    fn hlog_reads_back_histogram_by_histogram() {
        let filled = |from: u64| {
            let mut latencies = histogram::new();
            for value in from..from + 1_000 {
                histogram::record(&mut latencies, value * 1_000);
            }
            latencies
        };
        let (parts, actual, others) = ([filled(1), filled(500)], filled(7), filled(9));
        let interval = |part: usize, start_ms: u64, length_ms: u64| Interval {
            start_ns: start_ms * 1_000_000,
            length_ns: length_ms * 1_000_000,
            latencies: histogram::pack(&parts[part]),
        };
        let intervals = [interval(0, 0, 1_000), interval(1, 1_250, 50)];
        let start = SystemTime::UNIX_EPOCH + Duration::from_millis(1_790_000_000_250);
        let window = Duration::from_millis(1_700);
        let of_window = [
            ("actual", &Some(actual.clone())),
            ("others", &Some(others.clone())),
        ];
        let log = histogram_log("[a test]", (start, window), &intervals, of_window).unwrap();
        let text = String::from_utf8(log).unwrap();
        assert!(text.starts_with(
            "#[Histogram log format version 1.3]\n#[a test]\n#[StartTime: 1790000000.25"
        ));
        // The crate's reader knows no legend.
        let rows = text.lines().filter(|line| !line.starts_with('"'));
        let without_legend: String = rows.map(|line| format!("{line}\n")).collect();
        let intervals: Vec<_> = IntervalLogIterator::new(without_legend.as_bytes())
            .filter_map(|entry| match entry.unwrap() {
                LogEntry::Interval(interval) => Some(interval),
                _ => None,
            })
            .collect();
        let wanted = [
            ("intended", 0, 1_000, &parts[0]),
            ("intended", 1_250, 50, &parts[1]),
            ("actual", 0, 1_700, &actual),
            ("others", 0, 1_700, &others),
        ];
        assert_eq!(intervals.len(), wanted.len());
        for (interval, (tag, start_ms, length_ms, latencies)) in intervals.iter().zip(wanted) {
            assert_eq!(interval.tag().unwrap().as_str(), tag);
            assert_eq!(interval.start_timestamp().as_millis(), start_ms);
            assert_eq!(interval.duration().as_millis(), length_ms);
            assert!((interval.max() - latencies.max() as f64).abs() < 1.0);
            assert_eq!(
                &histogram::from_text(interval.encoded_histogram()).unwrap(),
                latencies
            );
        }
    }

    #[test]
    fn unwritable_paths_are_found_before_the_run() {
        let files = Files {
            json: Some("/nonexistent/r.json".into()),
            ..Files::default()
        };
        let error = OpenFiles::open(&files).unwrap_err();
        assert!(error.contains("/nonexistent/r.json"));
    }
}
