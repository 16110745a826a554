//! The measured table as markdown.

use std::fmt::Write as _;

use crate::bench::Bench;
use crate::figures::{Sample, Verdict};
use crate::rows::ROWS;
use crate::server::Product;

impl Bench {
    fn sample(&self, id: &'static str, product: Product) -> Option<Sample> {
        self.results
            .get(&(id, product))
            .map(|samples| Sample::median(samples))
    }

    /// Two tables: figures that have a goal, and all figures.
    pub(crate) fn report(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_goals(&mut out);
        let _ = self.write_figures(&mut out);
        out
    }

    fn write_goals(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "| work | figure | Lictor | Consul | ratio | goal | floor | stands |"
        )?;
        writeln!(out, "|---|---|---|---|---|---|---|---|")?;
        for row in ROWS {
            let Some(own) = self.sample(row.id, Product::Lictor) else {
                continue;
            };
            let peer = self.sample(row.id, Product::Consul);
            for &(figure, target) in row.targets {
                let Some(value) = own.get(figure) else { continue };
                let peer = peer.as_ref().and_then(|sample| sample.get(figure));
                let (goal, floor) = target.show(figure);
                writeln!(
                    out,
                    "| {} | {} | {} | {} | {} | {goal} | {floor} | {} |",
                    row.title,
                    figure.name(),
                    figure.show(value),
                    peer.map_or_else(|| "-".to_owned(), |value| figure.show(value)),
                    target.relation(value, peer),
                    target.judge(value, peer).map_or("-", Verdict::name),
                )?;
            }
        }
        Ok(())
    }

    fn write_figures(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "\n| work | server | runs | figures (medians) |\n|---|---|---|---|"
        )?;
        for row in ROWS {
            for product in [Product::Lictor, Product::Consul] {
                let Some(sample) = self.sample(row.id, product) else {
                    continue;
                };
                let runs = self.results.get(&(row.id, product)).map_or(0, Vec::len);
                let figures: Vec<String> = sample
                    .figures()
                    .map(|(figure, value)| format!("{} {}", figure.name(), figure.show(value)))
                    .collect();
                writeln!(
                    out,
                    "| {} | {} | {runs} | {} |",
                    row.title,
                    product.name(),
                    figures.join(", ")
                )?;
            }
        }
        Ok(())
    }
}
