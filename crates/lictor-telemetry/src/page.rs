//! Metrics as they are shown: the text format of Prometheus, and the JSON of Consul's telemetry.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::{Distribution, Durations, Sizes};

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only grows.
    Counter,
    /// Counts values in buckets.
    Histogram,
    /// The number of values and their sum.
    Summary,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
        }
    }
}

/// One metric with all its series.
#[derive(Debug)]
pub struct Family {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    series: Vec<(Labels, Reading)>,
}

type Labels = Vec<(&'static str, String)>;

#[derive(Debug)]
enum Reading {
    Number(f64),
    Distribution(Distribution),
    Summary { count: u64, sum: f64 },
}

impl Family {
    /// Adds a series of a gauge or counter.
    pub fn number(&mut self, labels: &[(&'static str, &str)], value: f64) {
        self.add(labels, Reading::Number(value));
    }

    /// Adds a series of a gauge or counter that counts.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a count beyond 2^53 may be shown rounded"
    )]
    pub fn count(&mut self, labels: &[(&'static str, &str)], value: u64) {
        self.number(labels, value as f64);
    }

    /// Adds a series of a histogram, or of a summary in thousandths: Consul's times are milliseconds.
    pub fn distribution(&mut self, labels: &[(&'static str, &str)], values: Distribution) {
        let reading = match self.kind {
            Kind::Summary => Reading::Summary {
                count: values.count(),
                sum: values.sum * 1000.0,
            },
            _ => Reading::Distribution(values),
        };
        self.add(labels, reading);
    }

    fn add(&mut self, labels: &[(&'static str, &str)], reading: Reading) {
        let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned()));
        self.series.push((labels.collect(), reading));
    }
}

/// All metrics of a server at one moment. Names have dots between their parts, as in Consul's telemetry; for Prometheus
/// they are underscores.
#[derive(Debug, Default)]
pub struct Page {
    families: Vec<Family>,
}

impl Page {
    /// Adds a metric without series. Each name may be added once.
    pub fn family(&mut self, kind: Kind, name: &'static str, help: &'static str) -> &mut Family {
        debug_assert!(
            self.families.iter().all(|family| family.name != name),
            "{name} is there already"
        );
        self.families.push(Family {
            name,
            help,
            kind,
            series: Vec::new(),
        });
        let last = self.families.len() - 1;
        &mut self.families[last]
    }

    /// Adds a gauge of one series.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.family(Kind::Gauge, name, help).count(&[], value);
    }

    /// Adds a counter of one series.
    pub fn counter(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.family(Kind::Counter, name, help).count(&[], value);
    }

    /// Adds a counter whose series differ in one label.
    pub fn counters<'a>(
        &mut self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'a str, u64)>,
    ) {
        let family = self.family(Kind::Counter, name, help);
        for (of, value) in values {
            family.count(&[(label, of)], value);
        }
    }

    /// Adds a gauge whose series differ in one label.
    pub fn gauges<'a>(
        &mut self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'a str, u64)>,
    ) {
        let family = self.family(Kind::Gauge, name, help);
        for (of, value) in values {
            family.count(&[(label, of)], value);
        }
    }

    /// Adds a histogram of times, in seconds.
    pub fn durations(&mut self, name: &'static str, help: &'static str, values: &Durations) {
        let family = self.family(Kind::Histogram, name, help);
        family.distribution(&[], values.read());
    }

    /// Adds a histogram of sizes.
    pub fn sizes(&mut self, name: &'static str, help: &'static str, values: &Sizes) {
        let family = self.family(Kind::Histogram, name, help);
        family.distribution(&[], values.read());
    }

    /// Adds a summary of times, in milliseconds, as Consul has them.
    pub fn milliseconds(&mut self, name: &'static str, help: &'static str, values: &Durations) {
        let family = self.family(Kind::Summary, name, help);
        family.distribution(&[], values.read());
    }

    /// The text format of Prometheus. Metrics without series are told of too.
    pub fn prometheus(&self) -> String {
        let mut text = String::with_capacity(64 * 1024);
        for family in &self.families {
            let name = underscored(family.name);
            // Writing to a text does not fail.
            let _ = writeln!(
                text,
                "# HELP {name} {}\n# TYPE {name} {}",
                family.help,
                family.kind.name()
            );
            for (labels, reading) in &family.series {
                match reading {
                    Reading::Number(value) => line(&mut text, &name, "", labels, None, *value),
                    Reading::Summary { count, sum } => {
                        line(&mut text, &name, "_sum", labels, None, *sum);
                        line(&mut text, &name, "_count", labels, None, *count);
                    }
                    Reading::Distribution(values) => {
                        for (bound, count) in values.cumulative() {
                            line(&mut text, &name, "_bucket", labels, Some(bound), count);
                        }
                        line(&mut text, &name, "_sum", labels, None, values.sum);
                        line(&mut text, &name, "_count", labels, None, values.count());
                    }
                }
            }
        }
        text
    }

    /// The form of Consul's telemetry. What Consul tells of its last interval of ten seconds stands here for all the time
    /// since the start, `uptime` ago. Smallest and largest values are bounds of their buckets. As in Consul the names of
    /// its own gauges carry the host's.
    pub fn json(&self, timestamp: &str, hostname: &str, uptime: Duration) -> Value {
        let (mut gauges, mut counters, mut samples) = (Vec::new(), Vec::new(), Vec::new());
        for family in &self.families {
            for (labels, reading) in &family.series {
                let pairs = labels
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), json!(value)));
                let labels: Map<String, Value> = pairs.collect();
                match reading {
                    Reading::Number(value) if family.kind == Kind::Gauge => gauges.push(json!({
                        "Name": with_host(family.name, hostname), "Value": number(*value), "Labels": labels,
                    })),
                    Reading::Number(value) => {
                        let each = i32::from(*value > 0.0);
                        let all = Sample {
                            // Of a sum of seconds too: clients read a whole number.
                            count: number(value.trunc()),
                            sum: *value,
                            extent: (each.into(), each.into()),
                            mean: each.into(),
                            deviation: 0.0,
                        };
                        counters.push(all.shown(family.name, &labels, uptime));
                    }
                    Reading::Summary { count, sum } => {
                        let mean = mean(*sum, *count);
                        let all = Sample {
                            count: json!(count),
                            sum: *sum,
                            extent: (mean, mean),
                            mean,
                            deviation: 0.0,
                        };
                        samples.push(all.shown(family.name, &labels, uptime));
                    }
                    Reading::Distribution(values) => {
                        let all = Sample {
                            count: json!(values.count()),
                            sum: values.sum,
                            extent: values.extent(),
                            mean: mean(values.sum, values.count()),
                            deviation: values.deviation(),
                        };
                        samples.push(all.shown(family.name, &labels, uptime));
                    }
                }
            }
        }
        json!({
            "Timestamp": timestamp, "Gauges": gauges, "Points": [], "Counters": counters, "Samples": samples,
        })
    }
}

/// Values as Consul tells of them.
struct Sample {
    count: Value,
    sum: f64,
    extent: (f64, f64),
    mean: f64,
    deviation: f64,
}

impl Sample {
    fn shown(self, name: &str, labels: &Map<String, Value>, uptime: Duration) -> Value {
        let seconds = uptime.as_secs_f64().max(1.0);
        json!({
            "Name": name, "Count": self.count, "Rate": self.sum / seconds, "Sum": number(self.sum),
            "Min": number(self.extent.0), "Max": number(self.extent.1), "Mean": number(self.mean),
            "Stddev": number(self.deviation), "Labels": labels,
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "a mean need not be exact")]
fn mean(sum: f64, count: u64) -> f64 {
    if count == 0 { 0.0 } else { sum / count as f64 }
}

/// Whole numbers without a point, as far as they are exact.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked to be whole and within the range"
)]
fn number(value: f64) -> Value {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    if (0.0..=EXACT_MAX).contains(&value) && value.fract() == 0.0 {
        json!(value as u64)
    } else {
        json!(value)
    }
}

fn underscored(name: &str) -> String {
    name.replace(['.', '-'], "_")
}

fn with_host(name: &str, hostname: &str) -> String {
    match name.strip_prefix("consul.") {
        Some(rest) => format!("consul.{hostname}.{rest}"),
        None => name.to_owned(),
    }
}

/// One line of Prometheus' text format.
fn line(
    text: &mut String,
    name: &str,
    suffix: &str,
    labels: &Labels,
    bound: Option<f64>,
    value: impl std::fmt::Display,
) {
    text.push_str(name);
    text.push_str(suffix);
    let bound = bound.map(|bound| match bound {
        f64::INFINITY => ("le", "+Inf".to_owned()),
        bound => ("le", bound.to_string()),
    });
    let mut before = '{';
    for (label, value) in labels.iter().chain(&bound) {
        text.push(before);
        before = ',';
        text.push_str(label);
        text.push_str("=\"");
        push_escaped(text, value);
        text.push('"');
    }
    if before == ',' {
        text.push('}');
    }
    // Writing to a text does not fail.
    let _ = writeln!(text, " {value}");
}

/// The value of a label, within quotes.
fn push_escaped(text: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Page {
        let (durations, sizes) = (Durations::default(), Sizes::default());
        durations.take(Duration::from_millis(2));
        durations.take(Duration::from_secs(20));
        sizes.take(3);
        let mut page = Page::default();
        page.gauge("consul.raft.term", "Term.", 7);
        page.counters("lictor.odd_total", "Odd names.", "name", [("a\"b\\c\nd", 1)]);
        page.family(Kind::Counter, "lictor.busy_seconds_total", "Time.")
            .number(&[], 2.75);
        page.durations("lictor.time_seconds", "Times.", &durations);
        page.sizes("lictor.size", "Sizes.", &sizes);
        page.milliseconds("consul.kvs.apply", "Writes.", &durations);
        page.family(Kind::Counter, "lictor.none_total", "Of which there are none.");
        page
    }

    #[test]
    fn prometheus_gets_help_type_and_every_series() {
        let text = page().prometheus();

        assert!(text.starts_with(
            "# HELP consul_raft_term Term.\n# TYPE consul_raft_term gauge\nconsul_raft_term 7\n"
        ));
        assert!(
            text.contains("lictor_odd_total{name=\"a\\\"b\\\\c\\nd\"} 1\n"),
            "{text}"
        );
        assert!(text.contains("lictor_time_seconds_bucket{le=\"0.001\"} 0\n"));
        assert!(text.contains("lictor_time_seconds_bucket{le=\"0.0025\"} 1\n"));
        assert!(text.contains("lictor_time_seconds_bucket{le=\"+Inf\"} 2\nlictor_time_seconds_sum 20.002\n"));
        assert!(text.contains("lictor_size_bucket{le=\"2\"} 0\nlictor_size_bucket{le=\"4\"} 1\n"));
        assert!(
            text.contains("consul_kvs_apply_sum 20002\nconsul_kvs_apply_count 2\n"),
            "{text}"
        );
        assert!(
            text.ends_with("# TYPE lictor_none_total counter\n"),
            "what may come is told"
        );
    }

    #[test]
    fn consul_gets_gauges_counters_and_samples() {
        let json = page().json("now", "host", Duration::from_secs(10));

        assert_eq!(json["Gauges"][0]["Name"], "consul.host.raft.term");
        assert_eq!(json["Gauges"][0]["Value"], 7);
        assert_eq!(json["Counters"][0]["Count"], 1);
        assert_eq!(json["Counters"][0]["Labels"]["name"], "a\"b\\c\nd");
        let busy = &json["Counters"][1];
        assert_eq!((&busy["Count"], &busy["Sum"]), (&json!(2), &json!(2.75)));
        let time = &json["Samples"][0];
        assert_eq!(
            (&time["Name"], &time["Count"]),
            (&json!("lictor.time_seconds"), &json!(2))
        );
        assert_eq!((&time["Min"], &time["Max"]), (&json!(0.001), &json!(10)));
        assert_eq!(json["Points"], json!([]));
        assert_eq!(json["Timestamp"], "now");
    }
}
