//! How histograms travel between processes, inside serde structures: as text, without loss.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::histogram::{self, Latencies};

/// `#[serde(with = "wire::latencies")]`
pub(crate) mod latencies {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        latencies: &Latencies,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(&histogram::to_text(latencies))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Latencies, D::Error> {
        histogram::from_text(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// `#[serde(with = "wire::latencies_if_any")]`
pub(crate) mod latencies_if_any {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        latencies: &Option<Latencies>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        latencies.as_ref().map(histogram::to_text).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Latencies>, D::Error> {
        Option::<String>::deserialize(from)?
            .map(|text| histogram::from_text(&text).map_err(D::Error::custom))
            .transpose()
    }
}

/// `#[serde(with = "wire::packed")]`, for what [`histogram::pack`] made.
pub(crate) mod packed {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(packed: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(packed))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        STANDARD
            .decode(String::deserialize(from)?)
            .map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Serialize, Deserialize)]
    struct Parcel {
        #[serde(with = "latencies")]
        always: Latencies,
        #[serde(with = "latencies_if_any")]
        perhaps: Option<Latencies>,
        #[serde(with = "packed")]
        packed: Vec<u8>,
    }

    proptest! {
        #[test]
        fn nothing_is_lost_on_the_way(
            values in prop::collection::vec(1_u64..4_000_000_000_000, 0..300),
        ) {
            let mut sent = histogram::new();
            values.iter().for_each(|value| histogram::record(&mut sent, *value));
            let parcel = Parcel {
                perhaps: (values.len() % 2 == 0).then(|| sent.clone()),
                packed: histogram::pack(&sent),
                always: sent,
            };
            let text = serde_json::to_string(&parcel).unwrap();
            let arrived: Parcel = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&arrived.always, &parcel.always);
            prop_assert_eq!(&arrived.perhaps, &parcel.perhaps);
            let mut unpacked = histogram::new();
            histogram::add_packed(&mut unpacked, &arrived.packed);
            prop_assert_eq!(&unpacked, &parcel.always);
        }
    }

    #[test]
    fn what_is_no_histogram_is_refused() {
        for text in [r#""""#, r#""AAAA""#, "7"] {
            let parcel = format!(r#"{{"always":{text},"perhaps":null,"packed":""}}"#);
            assert!(serde_json::from_str::<Parcel>(&parcel).is_err(), "{text}");
        }
    }
}
