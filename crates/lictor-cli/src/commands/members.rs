//! `members`.

use std::collections::BTreeMap;

use regex::Regex;
use serde::Deserialize;

use super::{Exit, Failure, Ui, table};
use crate::args::cluster::MembersArgs;
use crate::client::Call;

/// The exit code when no member is left to print.
const NONE: u8 = 2;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Member {
    name: String,
    addr: String,
    port: u16,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    status: u8,
}

impl Member {
    fn tag(&self, name: &str) -> Option<&str> {
        self.tags
            .get(name)
            .map(String::as_str)
            .filter(|text| !text.is_empty())
    }

    fn address(&self) -> String {
        if self.addr.contains(':') {
            format!("[{}]:{}", self.addr, self.port)
        } else {
            format!("{}:{}", self.addr, self.port)
        }
    }

    /// The gossip library's numbers for states.
    fn status(&self) -> &'static str {
        match self.status {
            1 => "alive",
            2 => "leaving",
            3 => "left",
            4 => "failed",
            _ => "none",
        }
    }

    /// Fills in what everybody is in where only the default is there.
    fn complete(mut self) -> Self {
        let segment = match self.tag("role") {
            Some("consul") => Some("<all>"),
            Some("node") if self.tag("segment").is_none() => Some("<default>"),
            _ => None,
        };
        if let Some(segment) = segment {
            self.tags.insert("segment".to_owned(), segment.to_owned());
        }
        self.tags
            .entry("ap".to_owned())
            .or_insert_with(|| "default".to_owned());
        self
    }

    fn plain(&self) -> [String; 9] {
        let kind = match self.tag("role") {
            Some("node") => "client",
            Some("consul") => "server",
            _ => "unknown",
        };
        // A build may carry a revision behind a colon.
        let build = self.tag("build").unwrap_or("unknown");
        let build = build.split(':').next().unwrap_or_default();
        let or_unknown = |name| self.tag(name).unwrap_or("unknown");
        [
            &self.name,
            &self.address(),
            self.status(),
            kind,
            build,
            or_unknown("vsn"),
            or_unknown("dc"),
            or_unknown("ap"),
            or_unknown("segment"),
        ]
        .map(str::to_owned)
    }

    fn detailed(&self) -> [String; 4] {
        let tags: Vec<_> = self
            .tags
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        [
            self.name.clone(),
            self.address(),
            self.status().to_owned(),
            tags.join(","),
        ]
    }
}

pub(crate) async fn run(args: &MembersArgs, ui: &mut Ui<'_>) -> Exit {
    let wanted = Regex::new(&args.status)
        .map_err(|error| Failure(format!("Failed to compile status regexp: {error}")))?;
    let call = Call::get("agent/members")
        .with("segment", args.segment.as_deref().unwrap_or("_all"))
        .with_flag("wan", args.wan)
        .with_some("filter", args.filter.as_deref());
    let found: Result<Vec<Member>, _> = ui.client(&args.client)?.fetch(call).await;
    let found = found.map_err(|error| Failure(format!("Error retrieving members: {error}")))?;
    let mut members: Vec<_> = found
        .into_iter()
        .filter(|member| wanted.is_match(member.status()))
        .map(Member::complete)
        .collect();
    members.sort_by(|a, b| a.name.cmp(&b.name));
    if members.is_empty() {
        return Ok(NONE);
    }
    if args.detailed == Some(true) {
        let head = ["Node", "Address", "Status", "Tags"].map(str::to_owned);
        let rows: Vec<_> = std::iter::once(head)
            .chain(members.iter().map(Member::detailed))
            .collect();
        table(ui, &rows)?;
    } else {
        let head = [
            "Node",
            "Address",
            "Status",
            "Type",
            "Build",
            "Protocol",
            "DC",
            "Partition",
            "Segment",
        ]
        .map(str::to_owned);
        let rows: Vec<_> = std::iter::once(head)
            .chain(members.iter().map(Member::plain))
            .collect();
        table(ui, &rows)?;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use crate::testing::run;

    const TWO: &str = r#"[{"Name":"b","Addr":"127.0.0.2","Port":8301,"Status":4,"Tags":{"role":"node","build":"1.20.6:","vsn":"2","dc":"dc1"}},
        {"Name":"a","Addr":"127.0.0.1","Port":8301,"Status":1,"Tags":{"role":"consul","build":"1.20.6:","vsn":"2","dc":"dc1","ap":"default"}}]"#;

    #[test]
    fn members_are_a_table_by_name() {
        let ran = run("lictor members", "", &[(200, TWO)]);

        assert_eq!(ran.asked, ["GET /v1/agent/members?segment=_all"]);
        let table = "Node  Address         Status  Type    Build   Protocol  DC   Partition  Segment\n\
                     a     127.0.0.1:8301  alive   server  1.20.6  2         dc1  default    <all>\n\
                     b     127.0.0.2:8301  failed  client  1.20.6  2         dc1  default    <default>\n";
        assert_eq!(ran.out, table);
    }

    #[test]
    fn details_are_all_tags() {
        let ran = run("lictor members -detailed -status=failed -wan", "", &[(200, TWO)]);

        assert_eq!(ran.asked, ["GET /v1/agent/members?segment=_all&wan=1"]);
        let table = "Node  Address         Status  Tags\n\
                     b     127.0.0.2:8301  failed  ap=default,build=1.20.6:,dc=dc1,role=node,segment=<default>,vsn=2\n";
        assert_eq!(ran.out, table);
    }

    #[test]
    fn nobody_is_exit_code_two_without_a_word() {
        let ran = run("lictor members -status=left", "", &[(200, TWO)]);

        assert_eq!((ran.code, ran.out.as_str(), ran.failed), (2, "", None));
    }

    #[test]
    fn a_status_that_is_no_expression_is_refused_before_anything_is_asked() {
        let ran = run("lictor members -status=(", "", &[]);

        assert!(
            ran.failed
                .expect("refused")
                .starts_with("Failed to compile status regexp: ")
        );
    }
}
