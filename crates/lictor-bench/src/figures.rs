//! Figures, samples of them, and what they are to be.

use std::collections::BTreeMap;

/// One measured quantity. All are kept in base units: seconds, bytes, operations per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Figure {
    /// Operations per second.
    Rate,
    /// Median latency in seconds.
    P50,
    /// 99th percentile of the latency in seconds.
    P99,
    /// CPU seconds of the server per operation.
    Cpu,
    /// CPU seconds of the load program per operation.
    LoadCpu,
    /// Bytes the server caused to be written per operation.
    Written,
    /// Bytes that reached the data's device per operation, file system journal and other processes included.
    Device,
    /// Cache flushes of the data's device per second.
    Flushes,
    /// Resident memory in bytes.
    Memory,
    /// Seconds that something took once.
    Time,
    /// The same work with and without something else going on, as a ratio.
    Kept,
    /// Requests that were not answered by 200.
    Failed,
    /// The part of one processor that a server takes while nobody asks it anything.
    Idle,
}

impl Figure {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::Cpu => "server CPU",
            Self::LoadCpu => "load CPU",
            Self::Written => "written",
            Self::Device => "on the device",
            Self::Flushes => "flushes",
            Self::Memory => "memory",
            Self::Time => "time",
            Self::Kept => "kept",
            Self::Failed => "failed",
            Self::Idle => "of a core",
        }
    }

    /// The value with a unit, at three significant digits.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Rate | Self::Flushes => format!("{}/s", grouped(value)),
            Self::P50 | Self::P99 | Self::Cpu | Self::LoadCpu | Self::Time => show_seconds(value),
            Self::Written | Self::Device | Self::Memory => show_bytes(value),
            Self::Kept | Self::Idle => format!("{:.1} %", value * 100.0),
            Self::Failed => format!("{value:.0}"),
        }
    }
}

fn show_seconds(seconds: f64) -> String {
    match seconds {
        s if s >= 1.0 => format!("{} s", digits(s)),
        s if s >= 1e-3 => format!("{} ms", digits(s * 1e3)),
        s => format!("{} us", digits(s * 1e6)),
    }
}

fn show_bytes(bytes: f64) -> String {
    match bytes {
        b if b >= 1e6 => format!("{} MB", digits(b / 1e6)),
        b if b >= 1e3 => format!("{} KB", digits(b / 1e3)),
        b => format!("{b:.0} B"),
    }
}

fn digits(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// Thousands apart, as in 72,700; small rates keep three digits.
fn grouped(value: f64) -> String {
    if value < 100.0 {
        return digits(value);
    }
    let plain = format!("{value:.0}");
    let mut out = String::new();
    for (n, digit) in plain.chars().enumerate() {
        if n > 0 && (plain.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A count as a float; counts here stay far below 2^52.
pub(crate) fn float(count: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    let value = count as f64;
    value
}

/// What one measurement brought.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Sample(BTreeMap<Figure, f64>);

impl Sample {
    pub(crate) fn of(figure: Figure, value: f64) -> Self {
        Self(BTreeMap::from([(figure, value)]))
    }

    pub(crate) fn set(&mut self, figure: Figure, value: f64) {
        self.0.insert(figure, value);
    }

    pub(crate) fn get(&self, figure: Figure) -> Option<f64> {
        self.0.get(&figure).copied()
    }

    pub(crate) fn figures(&self) -> impl Iterator<Item = (Figure, f64)> {
        self.0.iter().map(|(&figure, &value)| (figure, value))
    }

    /// The median of each figure over several samples.
    pub(crate) fn median(samples: &[Self]) -> Self {
        let mut values: BTreeMap<Figure, Vec<f64>> = BTreeMap::new();
        for (figure, value) in samples.iter().flat_map(Self::figures) {
            values.entry(figure).or_default().push(value);
        }
        Self(
            values
                .into_iter()
                .map(|(figure, mut all)| (figure, median(&mut all)))
                .collect(),
        )
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    }
}

/// What a figure is compared with, and where goal and floor lie.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Target {
    /// At least so many times the peer's.
    Times { goal: f64, floor: f64 },
    /// At most the so-manieth part of the peer's; a floor of 0 means none.
    Part { goal: f64, floor: f64 },
    /// At most so much, whatever the peer does.
    AtMost { goal: f64, floor: f64 },
    /// Off 1 by at most so much, whatever the peer does.
    Unchanged { goal: f64, floor: f64 },
}

/// How a figure stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    BelowFloor,
    AboveFloor,
    Goal,
}

impl Verdict {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::BelowFloor => "BELOW FLOOR",
            Self::AboveFloor => "above floor",
            Self::Goal => "goal",
        }
    }

    fn from(goal: bool, floor: bool) -> Self {
        match (goal, floor) {
            (true, _) => Self::Goal,
            (false, true) => Self::AboveFloor,
            (false, false) => Self::BelowFloor,
        }
    }
}

impl Target {
    /// `None` if a peer's figure is needed and missing.
    pub(crate) fn judge(self, own: f64, peer: Option<f64>) -> Option<Verdict> {
        Some(match self {
            Self::Times { goal, floor } => {
                let ratio = own / peer?;
                Verdict::from(ratio >= goal, ratio >= floor)
            }
            Self::Part { goal, floor } => {
                let part = peer? / own;
                Verdict::from(part >= goal, part >= floor)
            }
            Self::AtMost { goal, floor } => Verdict::from(own <= goal, own <= floor),
            Self::Unchanged { goal, floor } => {
                let off = (own - 1.0).abs();
                Verdict::from(off <= goal, off <= floor)
            }
        })
    }

    /// Goal and floor as text.
    pub(crate) fn show(self, figure: Figure) -> (String, String) {
        let text = |bound: f64| match self {
            Self::Times { .. } | Self::Part { .. } if bound <= 0.0 => "-".to_owned(),
            Self::Times { .. } => format!("{bound}x"),
            Self::Part { .. } => format!("1/{bound}"),
            Self::AtMost { .. } => format!("<= {}", figure.show(bound)),
            Self::Unchanged { .. } => format!("+-{:.0} %", bound * 100.0),
        };
        let (Self::Times { goal, floor }
        | Self::Part { goal, floor }
        | Self::AtMost { goal, floor }
        | Self::Unchanged { goal, floor }) = self;
        (text(goal), text(floor))
    }

    /// How the two figures relate, in the target's own words.
    pub(crate) fn relation(self, own: f64, peer: Option<f64>) -> String {
        match (self, peer) {
            (_, None) => "-".to_owned(),
            (Self::Part { .. } | Self::AtMost { .. }, Some(peer)) => format!("1/{}", digits(peer / own)),
            (_, Some(peer)) => format!("{}x", digits(own / peer)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_show_three_digits_and_a_unit() {
        assert_eq!(Figure::Rate.show(72_712.4), "72,712/s");
        assert_eq!(Figure::Rate.show(1_234_567.0), "1,234,567/s");
        assert_eq!(Figure::Rate.show(31.25), "31.2/s");
        assert_eq!(Figure::P50.show(0.000_28), "280 us");
        assert_eq!(Figure::Time.show(17.32), "17.3 s");
        assert_eq!(Figure::Memory.show(1_885e6), "1885 MB");
        assert_eq!(Figure::Written.show(420.4), "420 B");
    }

    #[test]
    fn the_median_ignores_an_outlier_and_takes_each_figure_by_itself() {
        let sample = |rate: f64, p50: f64| {
            let mut sample = Sample::of(Figure::Rate, rate);
            sample.set(Figure::P50, p50);
            sample
        };

        let median = Sample::median(&[sample(1.0, 9.0), sample(900.0, 2.0), sample(3.0, 1.0)]);

        assert_eq!(median, sample(3.0, 2.0));
        assert_eq!(
            Sample::median(&[sample(1.0, 1.0), sample(2.0, 1.0)]).get(Figure::Rate),
            Some(1.5)
        );
    }

    #[test]
    fn verdicts_follow_goal_and_floor() {
        let times = Target::Times {
            goal: 6.0,
            floor: 3.6,
        };
        assert_eq!(times.judge(60.0, Some(10.0)), Some(Verdict::Goal));
        assert_eq!(times.judge(59.0, Some(10.0)), Some(Verdict::AboveFloor));
        assert_eq!(times.judge(35.0, Some(10.0)), Some(Verdict::BelowFloor));
        assert_eq!(times.judge(35.0, None), None);

        let part = Target::Part {
            goal: 8.0,
            floor: 5.0,
        };
        assert_eq!(part.judge(1.0, Some(8.0)), Some(Verdict::Goal));
        assert_eq!(part.judge(1.0, Some(5.0)), Some(Verdict::AboveFloor));
        assert_eq!(part.judge(1.0, Some(4.9)), Some(Verdict::BelowFloor));
        let no_floor = Target::Part {
            goal: 8.0,
            floor: 0.0,
        };
        assert_eq!(no_floor.judge(1.0, Some(0.1)), Some(Verdict::AboveFloor));
        assert_eq!(no_floor.show(Figure::Cpu), ("1/8".to_owned(), "-".to_owned()));

        let most = Target::AtMost {
            goal: 10.0,
            floor: 16.0,
        };
        assert_eq!(most.judge(17.0, None), Some(Verdict::BelowFloor));

        let same = Target::Unchanged {
            goal: 0.05,
            floor: 0.15,
        };
        assert_eq!(same.judge(0.96, None), Some(Verdict::Goal));
        assert_eq!(same.judge(1.1, None), Some(Verdict::AboveFloor));
        assert_eq!(same.judge(0.8, None), Some(Verdict::BelowFloor));
    }
}
