use super::*;
use crate::definition::OUTPUT_MAX_BYTES;

const SECOND: Duration = Duration::from_secs(1);

fn ttl(id: &str, ttl: Duration, status: Option<Health>) -> CheckDefinition {
    let kind = CheckKind::Ttl(ttl.as_nanos().try_into().unwrap());
    CheckDefinition {
        id: id.into(),
        name: id.into(),
        kind,
        status,
        ..CheckDefinition::default()
    }
}

fn http(id: &str) -> CheckDefinition {
    let interval = 10_000_000_000;
    CheckDefinition {
        id: id.into(),
        kind: CheckKind::Http(<_>::default()),
        interval,
        ..CheckDefinition::default()
    }
}

fn with(definition: CheckDefinition, now: Instant) -> Local {
    let mut local = Local::new("n1", OUTPUT_MAX_BYTES, Scripts::default());
    local
        .put_check(definition, Source::Api, None, SECOND, now)
        .unwrap();
    local.take_pending();
    local
}

fn health(local: &Local, id: &str) -> (Health, String) {
    (local.checks()[id].health(), local.checks()[id].row.output.clone())
}

fn run(local: &mut Local, id: &str, now: Instant) -> u64 {
    match local.due(now, 10).pop() {
        Some(Action::Run {
            id: due, generation, ..
        }) if due == id => generation,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_ttl_check_begins_critical_and_lapses_when_it_is_not_fed() {
    let now = Instant::now();
    let mut local = with(ttl("c", SECOND, None), now);

    assert_eq!(health(&local, "c").0, Health::Critical);
    local.report("c", Health::Passing, "", now).unwrap();
    assert!(local.due(now + SECOND / 2, 10).is_empty());
    assert_eq!(health(&local, "c").0, Health::Passing);
    local.due(now + SECOND, 10);

    assert_eq!(health(&local, "c"), (Health::Critical, "TTL expired".into()));
    assert!(local.take_pending().checks.contains("c"));
}

#[test]
fn feeding_moves_the_deadline_without_growing_the_heap() {
    let now = Instant::now();
    let mut local = with(ttl("c", 10 * SECOND, Some(Health::Passing)), now);

    for second in 0..1000 {
        let now = now + second * SECOND;
        local.report("c", Health::Passing, "", now).unwrap();
        local.due(now, 10);
        assert_eq!(local.timers.len(), 1);
    }

    assert_eq!(health(&local, "c").0, Health::Passing);
    local.due(now + 1009 * SECOND, 10);
    assert_eq!(health(&local, "c").0, Health::Critical);
}

#[test]
fn a_check_that_was_never_fed_says_so() {
    let now = Instant::now();
    let mut local = with(ttl("c", SECOND, None), now);

    assert_eq!(health(&local, "c"), (Health::Critical, String::new()));
    local.due(now + SECOND, 10);

    assert_eq!(health(&local, "c"), (Health::Critical, "TTL expired".into()));
}

#[test]
fn a_lapsed_check_tells_its_last_words() {
    let now = Instant::now();
    let mut local = with(ttl("c", SECOND, None), now);

    local.report("c", Health::Warning, "slow", now).unwrap();
    local.due(now + SECOND, 10);

    assert_eq!(
        health(&local, "c").1,
        "TTL expired (last output before timeout follows): slow"
    );
}

/// As a running Consul was seen to: what was said before the check was registered again are not its last words.
#[test]
fn a_check_that_is_registered_again_has_said_nothing_yet() {
    let now = Instant::now();
    let mut local = with(ttl("c", SECOND, None), now);
    local.report("c", Health::Passing, "slow", now).unwrap();
    let restored = Restored {
        health: Health::Passing,
        output: "slow".into(),
        age: Duration::ZERO,
    };
    local
        .put_check(
            ttl("c", SECOND, None),
            Source::Api,
            Some(restored),
            Duration::ZERO,
            now,
        )
        .unwrap();

    assert_eq!(health(&local, "c"), (Health::Passing, "slow".into()));
    local.due(now + SECOND, 10);

    assert_eq!(health(&local, "c"), (Health::Critical, "TTL expired".into()));
}

#[test]
fn the_same_report_again_is_no_change() {
    let now = Instant::now();
    let mut local = with(ttl("c", SECOND, Some(Health::Passing)), now);

    local.report("c", Health::Passing, "", now).unwrap();

    assert!(!local.has_pending());
    assert!(!local.has_unsaved());
}

#[test]
fn another_output_alone_reaches_the_catalog_later() {
    let now = Instant::now();
    let mut local = with(ttl("c", 10 * OUTPUT_SYNC_DELAY, Some(Health::Passing)), now);

    local.report("c", Health::Passing, "1", now).unwrap();
    local.report("c", Health::Passing, "2", now).unwrap();

    assert!(!local.has_pending());
    assert!(local.checks()["c"].output_is_deferred());
    local.due(now + OUTPUT_SYNC_DELAY, 10);
    assert!(local.take_pending().checks.contains("c"));
    assert!(!local.checks()["c"].output_is_deferred());
}

#[test]
fn how_much_output_is_kept_is_a_setting_and_a_check_may_want_less() {
    let now = Instant::now();
    for (of_agent, of_check, kept) in [(3, 0, "yyy"), (3, 2, "yy"), (3, 9, "yyy")] {
        let mut local = Local::new("n1", of_agent, Scripts::default());
        let definition = CheckDefinition {
            output_max_size: of_check,
            ..ttl("c", SECOND, None)
        };
        local
            .put_check(definition, Source::Api, None, SECOND, now)
            .unwrap();

        local.report("c", Health::Passing, "yyyy", now).unwrap();

        assert!(
            health(&local, "c")
                .1
                .starts_with(&format!("{kept} ... (captured"))
        );
    }
}

#[test]
fn long_reports_are_cut() {
    let now = Instant::now();
    let mut local = with(ttl("c", SECOND, None), now);

    local
        .report("c", Health::Passing, &"y".repeat(5000), now)
        .unwrap();

    let output = health(&local, "c").1;
    assert_eq!(
        output,
        format!("{} ... (captured 4096 of 5000 bytes)", "y".repeat(4096))
    );
    assert_eq!(cut("aé", 2), "a ... (captured 2 of 3 bytes)");
}

#[test]
fn a_running_check_runs_again_after_its_interval() {
    let now = Instant::now();
    let mut local = with(http("c"), now);

    assert!(local.due(now, 10).is_empty());
    let generation = run(&mut local, "c", now + SECOND);
    local.ran("c", generation, Health::Passing, "ok", now + 2 * SECOND);

    assert_eq!(health(&local, "c"), (Health::Passing, "ok".into()));
    assert_eq!(local.next_deadline(), Some(now + 12 * SECOND));
}

#[test]
fn registering_again_and_again_does_not_grow_the_heap_without_bound() {
    let now = Instant::now();
    let mut local = Local::new("n1", OUTPUT_MAX_BYTES, Scripts::default());

    for _ in 0..10_000 {
        let definition = ttl("c", 86_400 * SECOND, Some(Health::Passing));
        local
            .put_check(definition, Source::Api, None, SECOND, now)
            .unwrap();
        local.report("c", Health::Critical, "", now).unwrap();
        local.report("c", Health::Passing, "", now).unwrap();
    }

    assert!(local.timers.len() < 1100, "{}", local.timers.len());
}

#[test]
fn results_of_an_earlier_registration_are_dropped() {
    let now = Instant::now();
    let mut local = with(http("c"), now);
    let generation = run(&mut local, "c", now + SECOND);

    local
        .put_check(http("c"), Source::Api, None, SECOND, now + SECOND)
        .unwrap();
    local.ran("c", generation, Health::Passing, "ok", now + SECOND);

    assert_eq!(health(&local, "c").0, Health::Critical);
    assert_eq!(local.timers.len(), 1);
}

#[test]
fn thresholds_hold_the_health_back() {
    let now = Instant::now();
    let mut definition = http("c");
    definition.success_before_passing = 2;
    definition.failures_before_warning = 2;
    definition.failures_before_critical = 3;
    let mut local = with(definition, now);
    let generation = local.checks()["c"].generation;
    let mut result = |health| {
        local.ran("c", generation, health, "", now);
        local.checks()["c"].health()
    };

    let all = [
        Health::Passing,
        Health::Passing,
        Health::Critical,
        Health::Critical,
        Health::Critical,
    ];
    assert_eq!(
        all.map(&mut result),
        [
            Health::Critical,
            Health::Passing,
            Health::Passing,
            Health::Warning,
            Health::Critical
        ]
    );
    assert_eq!(result(Health::Passing), Health::Critical);
    assert_eq!(result(Health::Passing), Health::Passing);
}

#[test]
fn a_service_goes_with_its_checks_when_it_was_critical_for_too_long() {
    let now = Instant::now();
    let mut local = Local::new("n1", OUTPUT_MAX_BYTES, Scripts::default());
    let service = ServiceDefinition {
        id: "web".into(),
        name: "web".into(),
        ..ServiceDefinition::default()
    };
    local.put_service(&service, Source::Api).unwrap();
    let mut definition = ttl("c", 3600 * SECOND, Some(Health::Passing));
    definition.service_id = "web".into();
    definition.deregister_critical_service_after = 90_000_000_000;
    local
        .put_check(definition, Source::Api, None, SECOND, now)
        .unwrap();

    local.report("c", Health::Critical, "", now).unwrap();
    local.report("c", Health::Passing, "", now + 80 * SECOND).unwrap();
    local
        .report("c", Health::Critical, "", now + 81 * SECOND)
        .unwrap();
    assert!(local.due(now + 100 * SECOND, 10).is_empty());
    let actions = local.due(now + 171 * SECOND, 10);

    assert!(
        matches!(&actions[..], [Action::Removed { service, checks }] if service == "web" && checks == &["c"])
    );
    assert!(local.services().is_empty() && local.checks().is_empty());
}

#[test]
fn a_check_needs_its_service() {
    let mut definition = ttl("c", SECOND, None);
    definition.service_id = "none".into();
    let error = Local::new("n1", OUTPUT_MAX_BYTES, Scripts::default()).put_check(
        definition,
        Source::Api,
        None,
        SECOND,
        Instant::now(),
    );

    assert_eq!(
        error.unwrap_err().to_string(),
        "ServiceID \"none\" does not exist"
    );
}

#[test]
fn a_restored_ttl_has_only_the_rest_of_its_time() {
    let now = Instant::now();
    let mut local = Local::new("n1", OUTPUT_MAX_BYTES, Scripts::default());
    let restored = Restored {
        health: Health::Passing,
        output: "fine".into(),
        age: 6 * SECOND,
    };
    local
        .put_check(
            ttl("c", 10 * SECOND, None),
            Source::Api,
            Some(restored),
            SECOND,
            now,
        )
        .unwrap();

    local.due(now + 3 * SECOND, 10);
    assert_eq!(health(&local, "c"), (Health::Passing, "fine".into()));
    local.due(now + 4 * SECOND, 10);
    assert_eq!(health(&local, "c").0, Health::Critical);
}

#[test]
fn a_check_that_moves_to_another_service_goes_with_that_one() {
    let now = Instant::now();
    let mut local = Local::new("n1", OUTPUT_MAX_BYTES, Scripts::default());
    let put = |local: &mut Local, service: &str| {
        let mut definition = ttl("c", SECOND, None);
        definition.service_id = service.into();
        local
            .put_check(definition, Source::Api, None, SECOND, now)
            .unwrap();
    };
    for id in ["a", "b"] {
        let service = ServiceDefinition {
            id: id.into(),
            name: id.into(),
            ..ServiceDefinition::default()
        };
        local.put_service(&service, Source::Api).unwrap();
    }

    put(&mut local, "a");
    put(&mut local, "b");

    assert!(local.remove_service("a").unwrap().is_empty());
    assert_eq!(local.checks()["c"].row.service_name, "b");
    assert_eq!(local.remove_service("b").unwrap(), ["c"]);
    assert!(local.checks().is_empty());
}

#[test]
fn programs_run_only_where_they_may() {
    let definition = || CheckDefinition {
        id: "c".into(),
        kind: CheckKind::Script(vec!["true".into()]),
        interval: 1,
        ..CheckDefinition::default()
    };
    for (from_clients, from_files) in [(false, false), (false, true), (true, true)] {
        let scripts = Scripts {
            from_clients,
            from_files,
        };
        for (source, allowed, refusal) in [
            (Source::Api, from_clients, LocalError::RemoteScriptsDisabled),
            (Source::Config, from_files, LocalError::ScriptsDisabled),
        ] {
            let mut local = Local::new("n1", OUTPUT_MAX_BYTES, scripts);

            let put = local.put_check(definition(), source, None, SECOND, Instant::now());

            assert_eq!(put, if allowed { Ok(()) } else { Err(refusal) });
            assert_eq!(local.checks().len(), usize::from(allowed));
        }
    }
}
