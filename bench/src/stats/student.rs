//! Quantiles of Student's t for any degrees of freedom.
//!
//! Those of statrs 0.19 are not asked: for many or broken degrees of freedom their search for the
//! root may not end.

use statrs::distribution::{Continuous, ContinuousCDF, Normal, StudentsT};

/// From so many degrees of freedom on, five terms of the expansion are exact to twelve digits.
const EXPANDED_FROM: f64 = 300.0;
/// Newton's method needs about ten steps with one degree of freedom, four with ten.
const STEPS: usize = 60;

/// The value below which a share `p` (0.5 to 1) of Student's t lies; infinite if there is none.
pub fn t_quantile(p: f64, degrees_of_freedom: f64) -> f64 {
    let normal = Normal::standard().inverse_cdf(p);
    if degrees_of_freedom >= EXPANDED_FROM {
        return expanded(normal, degrees_of_freedom);
    }
    let Ok(t) = StudentsT::new(0.0, 1.0, degrees_of_freedom) else {
        return f64::INFINITY;
    };
    // Right of 0 the tail is convex, and the normal quantile lies left of the root: no step goes
    // beyond it.
    let mut value = normal;
    for _ in 0..STEPS {
        let step = (t.sf(value) - (1.0 - p)) / t.pdf(value);
        value += step;
        if step.abs() <= 1e-14 * value {
            break;
        }
    }
    value
}

/// Cornish and Fisher's expansion around the normal quantile `z` (Abramowitz and Stegun 26.7.5).
fn expanded(z: f64, n: f64) -> f64 {
    let polynomial = |coefficients: &[f64]| {
        let of_square = coefficients
            .iter()
            .rev()
            .fold(0.0, |sum, c| sum * z * z + c);
        of_square * z
    };
    z + polynomial(&[1.0, 1.0]) / (4.0 * n)
        + polynomial(&[3.0, 16.0, 5.0]) / (96.0 * n.powi(2))
        + polynomial(&[-15.0, 17.0, 19.0, 3.0]) / (384.0 * n.powi(3))
        + polynomial(&[-945.0, -1920.0, 1482.0, 776.0, 79.0]) / (92_160.0 * n.powi(4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        // scipy.stats.t.ppf
        for (p, freedom, expected) in [
            (0.975, 1.0, 12.706_204_736_174_7),
            (0.975, 2.0, 4.302_652_729_749_46),
            (0.975, 4.0, 2.776_445_105_198_05),
            (0.975, 119.0, 1.980_099_876_456_94),
            (0.8, 3.7, 0.949_877_824_296_085),
            (0.993_75, 250.5, 2.515_873_071_828_04),
        ] {
            let ours = t_quantile(p, freedom);
            assert!((ours / expected - 1.0).abs() < 1e-12, "{freedom}: {ours}");
        }
        assert_eq!(t_quantile(0.5, 7.0), 0.0);
    }

    #[test]
    fn every_quantile_leads_back_to_its_share() {
        for p in [0.6, 0.8, 0.975, 0.99375, 0.9999] {
            let mut above = f64::INFINITY;
            for step in 0..400 {
                let freedom = 0.7 * 1.025_f64.powi(step);
                let value = t_quantile(p, freedom);
                assert!(value <= above, "{p}, {freedom}: {value} after {above}");
                above = value;
                if freedom < 1000.0 {
                    let share = StudentsT::new(0.0, 1.0, freedom).unwrap().cdf(value);
                    assert!((share - p).abs() < 1e-10, "{p}, {freedom}: {share}");
                }
            }
        }
    }

    #[test]
    fn the_expansion_meets_the_search_and_ends_at_the_normal() {
        for p in [0.6, 0.8, 0.975, 0.9999] {
            let (below, from) = (t_quantile(p, 299.999_999), t_quantile(p, EXPANDED_FROM));
            assert!((below / from - 1.0).abs() < 1e-9, "{p}: {below}, {from}");
            let normal = Normal::standard().inverse_cdf(p);
            assert!((t_quantile(p, 1e12) - normal).abs() < 1e-9);
        }
        assert_eq!(t_quantile(0.975, f64::NAN), f64::INFINITY);
    }
}
