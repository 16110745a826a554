//! Alias checks: as healthy as the checks of another service or node.

use lictor_proto::v1::CheckRow;

use crate::agent::Shared;
use crate::definition::{Alias, Health};
use crate::run::Finding;

impl Shared {
    /// How well that is which the alias check `id` looks at.
    pub(crate) fn follow(&self, id: &str, alias: &Alias) -> Finding {
        if alias.node.is_empty() {
            let local = self.local.lock();
            let others = local.checks().values().map(|check| &*check.row);
            let others = others.filter(|row| row.check_id != id);
            return judge(alias, others, local.services().contains_key(&alias.service));
        }
        let view = self.node.view();
        let is_own = self.node.identity().node.eq_ignore_ascii_case(&alias.node);
        let others = view.checks_of_node(&alias.node).map(|row| &**row);
        let others = others.filter(|row| !is_own || row.check_id != id);
        judge(alias, others, view.service(&alias.node, &alias.service).is_some())
    }
}

/// What follows from the checks of the node that the alias looks at. Its own check must not be among them.
fn judge<'a>(alias: &Alias, checks: impl Iterator<Item = &'a CheckRow>, service_exists: bool) -> Finding {
    let mut finding = Finding::new(Health::Passing, "No checks found.");
    let mut found = false;
    for check in checks {
        let is_wanted = check.service_id == alias.service;
        if !check.service_id.is_empty() && !is_wanted {
            continue;
        }
        found |= is_wanted;
        match Health::parse(&check.status) {
            Some(health @ (Health::Critical | Health::Warning)) => {
                let text = format!("Aliased check {:?} failing: {}", check.name, check.output);
                finding = Finding::new(health, text);
                if health == Health::Critical {
                    break;
                }
            }
            _ if finding.health == Health::Passing => "All checks passing.".clone_into(&mut finding.output),
            _ => {}
        }
    }
    if !found && !alias.service.is_empty() && !service_exists {
        let Alias { node, service } = alias;
        let text = format!("Service {service} could not be found on node {node}");
        return Finding::new(Health::Critical, text);
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, service: &str, status: &str) -> CheckRow {
        CheckRow {
            name: name.into(),
            service_id: service.into(),
            status: status.into(),
            output: "why".into(),
            ..CheckRow::default()
        }
    }

    fn of(service: &str, checks: &[CheckRow], exists: bool) -> (Health, String) {
        let alias = Alias {
            node: String::new(),
            service: service.to_owned(),
        };
        let Finding { health, output } = judge(&alias, checks.iter(), exists);
        (health, output)
    }

    #[test]
    fn the_worst_of_the_service_and_its_node_counts() {
        use Health::{Critical, Passing, Warning};
        let fine = [
            check("a", "web", "passing"),
            check("n", "", "passing"),
            check("x", "other", "critical"),
        ];
        let slow = [check("a", "web", "warning"), check("b", "web", "passing")];
        let down = [check("a", "web", "warning"), check("n", "", "critical")];

        assert_eq!(of("web", &fine, true), (Passing, "All checks passing.".into()));
        assert_eq!(
            of("web", &slow, true),
            (Warning, "Aliased check \"a\" failing: why".into())
        );
        assert_eq!(
            of("web", &down, true),
            (Critical, "Aliased check \"n\" failing: why".into())
        );
        assert_eq!(of("web", &[], true), (Passing, "No checks found.".into()));
        let missing = "Service gone could not be found on node ".into();
        assert_eq!(of("gone", &fine, false), (Critical, missing));
        assert_eq!(of("", &fine, false), (Passing, "All checks passing.".into()));
    }
}
