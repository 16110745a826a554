//! `/mod/v2/lock` and `/mod/v2/leader`: fair locks and leader election, as etcd's modules promised them.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use lictor_tests::{Options, Response, Server, is_consul, until};
use serde_json::{Value, json};

use crate::skip;

const SOON: Duration = Duration::from_secs(20);
const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

/// Runs a test on a server of its own. Consul has no fair locks.
fn trial(test: impl FnOnce(&mut Server) -> Result<()>) -> Result<()> {
    if is_consul()? {
        return skip("fair locks are Lictor's");
    }
    let options = Options {
        hcl: "limits { http_max_conns_per_client = 5000 }".to_owned(),
        ..Options::default()
    };
    test(&mut Server::with(options)?)
}

/// As `curl -X METHOD URL -d FORM` sends it.
fn ask(server: &Server, method: &str, path: &str, form: &str) -> Result<Response> {
    let mut client = server.client().with_timeout(Duration::from_secs(120));
    client.call(method, &format!("/mod/v2/{path}"), &[FORM], form.as_bytes())
}

fn acquire(server: &Server, path: &str, form: &str) -> Result<Response> {
    ask(server, "POST", &format!("lock/{path}"), form)
}

/// The index that a request was given the lock with.
fn granted(response: &Response) -> Result<u64> {
    ensure!(response.status == 200, "{} {}", response.status, response.text());
    let index = response.text().parse().context("no index")?;
    ensure!(index > 0, "an index is positive");
    Ok(index)
}

/// A request that waits.
struct Waiting(JoinHandle<Result<Response>>);

impl Waiting {
    fn ask(server: &Server, method: &'static str, path: &str, form: &str) -> Self {
        let mut client = server.client().with_timeout(Duration::from_secs(300));
        let (path, form) = (format!("/mod/v2/{path}"), form.to_owned());
        Self(thread::spawn(move || {
            client.call(method, &path, &[FORM], form.as_bytes())
        }))
    }

    /// Stands in line, and is there when this returns.
    fn in_line(server: &Server, path: &str, form: &str) -> Result<Self> {
        let before = waiting(server)?;
        let waits = Self::ask(server, "POST", &format!("lock/{path}"), form);
        await_waiting(server, before + 1)?;
        Ok(waits)
    }

    fn answer(self) -> Result<Response> {
        self.0.join().map_err(|_| anyhow!("the client panicked"))?
    }

    fn is_over(&self) -> bool {
        self.0.is_finished()
    }
}

fn entries(server: &Server) -> Result<Vec<Value>> {
    let list = server.get("/v1/fair-locks")?.json()?;
    Ok(list.as_array().context("no list")?.clone())
}

/// How many entries wait for any lock.
fn waiting(server: &Server) -> Result<usize> {
    let entries = entries(server)?;
    Ok(entries.iter().filter(|entry| entry["Holds"] == false).count())
}

fn await_waiting(server: &Server, count: usize) -> Result<()> {
    until(&format!("{count} to stand in line"), SOON, || {
        Ok((waiting(server)? == count).then_some(()))
    })
}

fn holder(server: &Server, name: &str) -> Result<String> {
    let response = ask(server, "GET", &format!("lock/{name}"), "")?;
    ensure!(response.status == 200, "{} {}", response.status, response.text());
    Ok(response.text())
}

fn is_error(response: &Response, status: u16, code: u64, cause: &str) -> Result<()> {
    let error = response.json()?;
    ensure!(
        response.status == status && error["errorCode"] == code && error["cause"] == cause,
        "{} {error}, not {status} {code} {cause}",
        response.status
    );
    ensure!(
        error["message"].is_string() && error["index"].is_number(),
        "{error}"
    );
    ensure!(response.header("Content-Type") == Some("application/json"));
    ensure!(response.header("X-Etcd-Index") == Some(error["index"].to_string().as_str()));
    ensure!(response.body.ends_with(b"}\n"), "{:?}", response.text());
    Ok(())
}

#[test]
fn a_lock_is_taken_shown_renewed_and_released_by_its_index() -> Result<()> {
    trial(|server| {
        let taken = acquire(server, "customer1?ttl=60", "")?;
        let index = granted(&taken)?;
        assert_eq!(taken.header("Content-Type"), Some("text/plain; charset=utf-8"));

        assert_eq!(holder(server, "customer1")?, "-");
        assert_eq!(holder(server, "customer1?field=value")?, "-");
        assert_eq!(holder(server, "customer1?field=index")?, index.to_string());
        let renewed = ask(server, "PUT", "lock/customer1?ttl=60", &format!("index={index}"))?;
        assert_eq!((renewed.status, renewed.text().as_str()), (200, ""));
        assert_eq!(holder(server, "customer1")?, "-", "a renewal keeps the value");
        let released = ask(server, "DELETE", &format!("lock/customer1?index={index}"), "")?;
        assert_eq!((released.status, released.text().as_str()), (200, ""));

        assert_eq!(holder(server, "customer1")?, "");
        assert_eq!(holder(server, "customer1?field=bogus")?, "");
        Ok(())
    })
}

#[test]
fn a_lock_is_taken_shown_renewed_and_released_by_its_value() -> Result<()> {
    trial(|server| {
        let first = granted(&acquire(server, "l?ttl=60", "value=bar")?)?;
        assert_eq!(holder(server, "l")?, "bar");
        assert_eq!(ask(server, "PUT", "lock/l?ttl=60", "value=bar")?.status, 200);
        let renamed = ask(
            server,
            "PUT",
            "lock/l?ttl=60",
            &format!("index={first}&value=baz"),
        )?;
        assert_eq!(renamed.status, 200);
        assert_eq!(holder(server, "l")?, "baz");
        assert_eq!(ask(server, "DELETE", "lock/l?value=baz", "")?.status, 200);

        let second = granted(&acquire(server, "l?ttl=60", "value=bar")?)?;

        assert!(second > first, "indexes grow: {first}, {second}");
        Ok(())
    })
}

#[test]
fn parameters_stand_in_the_query_or_in_a_form_which_goes_first() -> Result<()> {
    trial(|server| {
        for (query, form, value) in [
            ("?ttl=60&value=q", "value=f", "f"),
            ("", "ttl=60&value=f&timeout=2", "f"),
            ("?ttl=60&value=q&timeout=2", "", "q"),
            ("?ttl=60&value=q+%26%2F", "unknown=1", "q &/"),
            ("?ttl=60&Value=q", "", "-"),
        ] {
            let index = granted(&acquire(server, &format!("l{query}"), form)?)?;
            assert_eq!(holder(server, "l")?, value, "{query} {form}");
            ask(server, "DELETE", &format!("lock/l?index={index}"), "")?;
        }
        let mut client = server.client();
        let json = ("Content-Type", "application/json");
        let index = granted(&client.call("POST", "/mod/v2/lock/l?ttl=60", &[json], b"value=no")?)?;
        assert_eq!(holder(server, "l")?, "-", "a body that is no form says nothing");
        ask(server, "DELETE", &format!("lock/l?index={index}"), "")?;
        let multipart = ("Content-Type", "multipart/form-data; boundary=xyz");
        let body = "--xyz\r\nContent-Disposition: form-data; name=\"value\"\r\n\r\nparts\r\n--xyz--\r\n";
        granted(&client.call("POST", "/mod/v2/lock/l?ttl=60", &[multipart], body.as_bytes())?)?;
        assert_eq!(holder(server, "l")?, "parts");
        Ok(())
    })
}

#[test]
fn locks_pass_on_in_the_order_of_arrival_one_at_a_time() -> Result<()> {
    trial(|server| {
        let mut held = granted(&acquire(server, "l?ttl=60", "")?)?;
        let mut line = Vec::new();
        for _ in 0..6 {
            line.push(Waiting::in_line(server, "l?ttl=60", "")?);
        }

        for next in 0..line.len() {
            assert!(line.iter().all(|waits| !waits.is_over()), "nobody is let in");
            ask(server, "DELETE", &format!("lock/l?index={held}"), "")?;
            let index = granted(&line.remove(0).answer()?)?;
            assert!(index > held, "{index} after {held}");
            assert_eq!(
                holder(server, "l?field=index")?,
                index.to_string(),
                "round {next}"
            );
            held = index;
            if line.is_empty() {
                break;
            }
        }
        Ok(())
    })
}

/// The index of the state tells how many entries were logged, and the wake-ups are those that the server counts.
#[test]
fn a_thousand_wait_and_a_release_wakes_one_for_one_log_entry() -> Result<()> {
    const CLIENTS: usize = 1000;
    trial(|server| {
        let held = granted(&acquire(server, "l?ttl=60", "")?)?;
        let mut streams = Vec::with_capacity(CLIENTS);
        for _ in 0..CLIENTS {
            let mut stream = server.client().connect()?;
            stream
                .write_all(b"POST /mod/v2/lock/l?ttl=600 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")?;
            streams.push(stream);
        }
        await_waiting(server, CLIENTS)?;
        let mut order: Vec<u64> = entries(server)?
            .iter()
            .filter_map(|e| e["Index"].as_u64())
            .collect();
        assert!(order.is_sorted() && order.len() == CLIENTS + 1);
        order.remove(0);

        let before = server.get("/v1/agent/self")?.json()?["Stats"]["raft"]["applied_index"].clone();
        ask(server, "DELETE", &format!("lock/l?index={held}"), "")?;
        assert_eq!(holder(server, "l?field=index")?, order[0].to_string());
        let after = server.get("/v1/agent/self")?.json()?["Stats"]["raft"]["applied_index"].clone();
        let number = |value: &Value| value.as_str().and_then(|text| text.parse::<u64>().ok());
        assert_eq!(
            number(&after).context("no applied index")?,
            number(&before).context("no applied index")? + 1
        );
        assert_eq!(waiting(server)?, CLIENTS - 1);
        // Exactly one of them has an answer to read.
        let answered = |stream: &std::net::TcpStream| -> Result<bool> {
            stream.set_nonblocking(true)?;
            let peeked = stream.peek(&mut [0; 1]);
            stream.set_nonblocking(false)?;
            Ok(peeked.is_ok())
        };
        let count = || streams.iter().filter(|s| answered(s).unwrap_or(false)).count();
        until(
            "the next to be answered",
            SOON,
            || Ok((count() > 0).then_some(())),
        )?;
        assert_eq!(count(), 1);
        Ok(())
    })
}

#[test]
fn one_value_has_one_place_and_all_that_wait_with_it_are_told() -> Result<()> {
    trial(|server| {
        granted(&acquire(server, "l?ttl=60", "value=holder")?)?;
        let twin = Waiting::in_line(server, "l?ttl=60", "value=twin")?;
        let behind = Waiting::in_line(server, "l?ttl=60", "value=behind")?;
        let before = server.open_connections()?;
        let late_twin = Waiting::ask(server, "POST", "lock/l?ttl=60", "value=twin");
        server.await_open_connections(before + 1)?;
        let refused = acquire(server, "l?ttl=60&timeout=0", "value=twin")?;
        assert_eq!(
            (refused.status, refused.text().as_str()),
            (500, "failed to acquire lock\n")
        );
        assert_eq!(waiting(server)?, 2, "the place of the twins was not given up");

        ask(server, "DELETE", "lock/l?value=holder", "")?;
        let (one, other) = (granted(&twin.answer()?)?, granted(&late_twin.answer()?)?);

        assert_eq!(one, other);
        assert!(!behind.is_over());
        ask(server, "DELETE", "lock/l?value=twin", "")?;
        assert!(granted(&behind.answer()?)? > one);
        Ok(())
    })
}

#[test]
fn the_holders_value_renews_at_once_and_a_dash_is_a_value_of_its_own() -> Result<()> {
    trial(|server| {
        let index = granted(&acquire(server, "l?ttl=60", "value=me")?)?;
        for timeout in ["", "&timeout=0", "&timeout=5"] {
            assert_eq!(
                granted(&acquire(server, &format!("l?ttl=60{timeout}"), "value=me")?)?,
                index
            );
        }

        granted(&acquire(server, "anonymous?ttl=60", "")?)?;
        let dash = acquire(server, "anonymous?ttl=60&timeout=0", "value=-")?;
        assert_eq!(dash.status, 500, "strangers do not share a lock: {}", dash.text());
        Ok(())
    })
}

#[test]
fn whoever_does_not_want_to_wait_is_told_at_once_and_leaves_nothing_behind() -> Result<()> {
    trial(|server| {
        let index = granted(&acquire(server, "l?ttl=60&timeout=0", "value=first")?)?;

        let refused = acquire(server, "l?ttl=60&timeout=0", "value=second")?;
        assert_eq!(
            (refused.status, refused.text().as_str()),
            (500, "failed to acquire lock\n")
        );
        assert_eq!(refused.header("Content-Type"), Some("text/plain; charset=utf-8"));

        assert_eq!(entries(server)?.len(), 1);
        ask(server, "DELETE", &format!("lock/l?index={index}"), "")?;
        assert_eq!(holder(server, "l")?, "");
        Ok(())
    })
}

#[test]
fn a_timeout_ends_the_wait_and_the_place_is_gone_when_the_client_hears_of_it() -> Result<()> {
    trial(|server| {
        granted(&acquire(server, "l?ttl=60", "value=holder")?)?;
        let last = {
            let middle = Waiting::ask(server, "POST", "lock/l?ttl=60&timeout=5", "value=middle");
            await_waiting(server, 1)?;
            let last = Waiting::in_line(server, "l?ttl=60", "value=last")?;
            let begun = Instant::now();
            let closed = middle.answer()?;
            assert_eq!(
                (closed.status, closed.text().as_str()),
                (500, "lock watch closed\n")
            );
            assert!(begun.elapsed() < SOON);
            last
        };
        let values: Vec<_> = entries(server)?
            .iter()
            .map(|entry| entry["Value"].clone())
            .collect();
        assert_eq!(values, [json!("holder"), json!("last")]);
        assert!(!last.is_over(), "one who leaves lets nobody in");

        ask(server, "DELETE", "lock/l?value=holder", "")?;

        granted(&last.answer()?)?;
        Ok(())
    })
}

#[test]
fn a_client_that_goes_away_leaves_the_line() -> Result<()> {
    trial(|server| {
        granted(&acquire(server, "l?ttl=60", "value=holder")?)?;
        for form in ["value=gone", ""] {
            let mut stream = server.client().connect()?;
            let head = format!(
                "POST /mod/v2/lock/l?ttl=60 HTTP/1.1\r\nHost: x\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n{form}",
                FORM.1,
                form.len()
            );
            stream.write_all(head.as_bytes())?;
            await_waiting(server, 1)?;
            drop(stream);
            await_waiting(server, 0)?;
        }

        let next = Waiting::in_line(server, "l?ttl=60", "value=next")?;
        ask(server, "DELETE", "lock/l?value=holder", "")?;

        granted(&next.answer()?)?;
        assert_eq!(holder(server, "l")?, "next");
        Ok(())
    })
}

#[test]
fn a_place_shared_by_two_is_kept_when_one_of_them_goes() -> Result<()> {
    trial(|server| {
        granted(&acquire(server, "l?ttl=60", "value=holder")?)?;
        let stays = Waiting::in_line(server, "l?ttl=60", "value=twin")?;
        let goes = acquire(server, "l?ttl=60&timeout=1", "value=twin")?;
        assert_eq!((goes.status, goes.text().as_str()), (500, "lock watch closed\n"));
        assert_eq!(waiting(server)?, 1);

        ask(server, "DELETE", "lock/l?value=holder", "")?;

        granted(&stays.answer()?)?;
        Ok(())
    })
}

#[test]
fn a_lock_lapses_after_its_ttl_and_the_next_has_its_own_in_full() -> Result<()> {
    trial(|server| {
        let begun = Instant::now();
        let first = granted(&acquire(server, "l?ttl=5", "value=a")?)?;
        let next = Waiting::in_line(server, "l?ttl=3", "value=b")?;
        granted(&next.answer()?)?;
        let taken_over = begun.elapsed();
        assert!(taken_over >= Duration::from_secs(5), "{taken_over:?}");
        is_error(
            &ask(server, "PUT", "lock/l?ttl=5", &format!("index={first}"))?,
            404,
            100,
            "/mod/v2/lock/l",
        )?;

        until("the second to lapse", SOON, || {
            Ok(holder(server, "l")?.is_empty().then_some(()))
        })?;

        let both = begun.elapsed();
        assert!(both >= Duration::from_secs(8), "{both:?}");
        Ok(())
    })
}

/// The original handed the lock on at any event of the entry before.
#[test]
fn renewals_keep_the_lock_and_let_nobody_in() -> Result<()> {
    trial(|server| {
        granted(&acquire(server, "l?ttl=2", "value=a")?)?;
        let next = Waiting::in_line(server, "l?ttl=60", "value=b")?;
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(5) {
            let renewed = ask(server, "PUT", "lock/l?ttl=2", "value=a")?;
            ensure!(renewed.status == 200, "{} {}", renewed.status, renewed.text());
            ensure!(
                !next.is_over() && holder(server, "l")? == "a",
                "a renewal let the next in"
            );
            thread::sleep(Duration::from_millis(200));
        }

        granted(&next.answer()?)?;
        Ok(())
    })
}

/// The original kept the folder alive instead of the entry, and turned a TTL of a second into a busy loop.
#[test]
fn a_wait_may_last_longer_than_its_ttl_and_costs_nothing() -> Result<()> {
    trial(|server| {
        granted(&acquire(server, "l?ttl=60", "value=a")?)?;
        let next = Waiting::in_line(server, "l?ttl=1", "value=b")?;
        let forever = Waiting::in_line(server, "l?ttl=0", "value=c")?;
        let index = server.get("/v1/fair-locks")?.index()?;
        let changed = server.get(&format!("/v1/fair-locks?index={index}&wait=4s"))?;
        assert_eq!(changed.index()?, index, "nothing happens while they wait");
        assert!(!next.is_over());

        ask(server, "DELETE", "lock/l?value=a", "")?;
        granted(&next.answer()?)?;

        granted(&forever.answer()?)?;
        assert_eq!(holder(server, "l")?, "c");
        Ok(())
    })
}

#[test]
fn an_entry_in_line_is_renewed_and_taken_out_like_the_holder() -> Result<()> {
    trial(|server| {
        granted(&acquire(server, "l?ttl=60", "value=a")?)?;
        let next = Waiting::in_line(server, "l?ttl=60", "value=b")?;
        let last = Waiting::in_line(server, "l?ttl=60", "value=c")?;
        assert_eq!(ask(server, "PUT", "lock/l?ttl=60", "value=b")?.status, 200);
        assert!(!next.is_over());

        assert_eq!(ask(server, "DELETE", "lock/l?value=b", "")?.status, 200);
        let closed = next.answer()?;
        assert_eq!(
            (closed.status, closed.text().as_str()),
            (500, "lock watch closed\n")
        );

        assert!(
            !last.is_over() && holder(server, "l")? == "a",
            "that granted somebody"
        );
        ask(server, "DELETE", "lock/l?value=a", "")?;
        granted(&last.answer()?)?;
        Ok(())
    })
}

#[test]
fn mistakes_are_told_in_etcds_codes() -> Result<()> {
    trial(|server| {
        for ttl in ["", "?ttl=abc", "?ttl=60s", "?ttl=1.5", "?ttl=", "?ttl=-1"] {
            is_error(&acquire(server, &format!("l{ttl}"), "")?, 400, 202, "Acquire")?;
            is_error(
                &ask(server, "PUT", &format!("lock/l{ttl}"), "index=2")?,
                400,
                202,
                "Renew",
            )?;
        }
        is_error(&acquire(server, "l?ttl=60", "timeout=abc")?, 400, 205, "Acquire")?;
        is_error(&acquire(server, "l?timeout=abc", "")?, 400, 205, "Acquire")?;
        is_error(&ask(server, "PUT", "lock/l?ttl=60", "")?, 400, 207, "Renew")?;
        is_error(&ask(server, "DELETE", "lock/l", "value=a")?, 400, 207, "Release")?;
        is_error(
            &ask(server, "DELETE", "lock/l?index=2&value=a", "")?,
            400,
            208,
            "Release",
        )?;
        is_error(&ask(server, "GET", "lock/l", "")?, 404, 100, "/mod/v2/lock/l")?;
        for method in ["POST", "PUT", "DELETE", "GET"] {
            let empty = ask(server, method, "lock/?ttl=60", "")?;
            ensure!(
                empty.status == 400 && empty.json()?["errorCode"] == 206,
                "{}",
                empty.text()
            );
        }

        granted(&acquire(server, "l?ttl=60", "value=me")?)?;
        is_error(&ask(server, "GET", "lock/l?field=bogus", "")?, 400, 209, "Get")?;
        is_error(
            &ask(server, "PUT", "lock/l?ttl=60", "value=x")?,
            404,
            100,
            "Renew",
        )?;
        is_error(&ask(server, "DELETE", "lock/l?value=x", "")?, 404, 100, "Release")?;
        for index in ["999999999", "abc", "-1"] {
            let missing = ask(server, "DELETE", &format!("lock/l?index={index}"), "")?;
            is_error(&missing, 404, 100, "/mod/v2/lock/l")?;
            ensure!(missing.json()?["index"].as_u64() > Some(0), "{}", missing.text());
        }
        let refused = ask(server, "PATCH", "lock/l?ttl=60", "")?;
        ensure!(refused.status == 405, "{}", refused.status);
        assert_eq!(refused.header("Allow"), Some("OPTIONS,GET,PUT,POST,DELETE"));
        let large = "x".repeat(100_000);
        assert_eq!(
            acquire(server, "l?ttl=60", &format!("value={large}"))?.status,
            413
        );
        assert_eq!(holder(server, "l")?, "me", "a mistake did something");
        Ok(())
    })
}

#[test]
fn names_with_slashes_are_locks_of_their_own_and_none_shows_among_the_keys() -> Result<()> {
    trial(|server| {
        let mut indexes = BTreeSet::new();
        for name in ["team/a", "team/a/b", "team", "team%2Fb", "Team"] {
            indexes.insert(granted(&acquire(
                server,
                &format!("{name}?ttl=60&timeout=0"),
                "",
            )?)?);
        }
        assert_eq!(indexes.len(), 5);
        assert_eq!(
            holder(server, "team/a?field=index")?,
            indexes.iter().next().context("none")?.to_string()
        );

        assert_eq!(server.get("/v1/kv/?recurse")?.status, 404);
        assert_eq!(server.get("/v1/kv/?keys")?.json()?, json!([]));
        let names: Vec<_> = entries(server)?
            .iter()
            .map(|entry| entry["Name"].clone())
            .collect();
        assert_eq!(names, ["Team", "team", "team/a", "team/a/b", "team/b"]);
        Ok(())
    })
}

#[test]
fn a_leader_is_elected_by_name_and_is_the_holder_of_that_lock() -> Result<()> {
    trial(|server| {
        let path = "leader/order_processing";
        is_error(
            &ask(server, "PUT", &format!("{path}?ttl=60"), "")?,
            400,
            206,
            "Set",
        )?;
        is_error(&ask(server, "DELETE", path, "name=a")?, 400, 206, "Delete")?;
        is_error(&ask(server, "PUT", path, "name=a")?, 400, 202, "Acquire")?;
        is_error(
            &ask(server, "GET", path, "")?,
            404,
            100,
            "/mod/v2/lock/order_processing",
        )?;

        let elected = ask(server, "PUT", &format!("{path}?ttl=60"), "name=myserver1.foo.com")?;
        let index = granted(&elected)?;
        assert_eq!(ask(server, "GET", path, "")?.text(), "myserver1.foo.com");
        assert_eq!(holder(server, "order_processing")?, "myserver1.foo.com");
        assert_eq!(holder(server, "order_processing?field=index")?, index.to_string());
        let again = ask(server, "PUT", &format!("{path}?ttl=60"), "name=myserver1.foo.com")?;
        assert_eq!(granted(&again)?, index);

        is_error(
            &ask(server, "DELETE", &format!("{path}?name=other"), "")?,
            404,
            100,
            "Release",
        )?;
        let gone = ask(server, "DELETE", &format!("{path}?name=myserver1.foo.com"), "")?;
        assert_eq!((gone.status, gone.text().as_str()), (200, ""));
        let nobody = ask(server, "GET", path, "")?;
        assert_eq!((nobody.status, nobody.text().as_str()), (200, ""));
        assert_eq!(ask(server, "POST", path, "")?.status, 405);
        Ok(())
    })
}

#[test]
fn one_candidate_leads_and_the_next_follows_when_it_is_deleted_or_lapses() -> Result<()> {
    trial(|server| {
        let path = "leader/l?ttl=60";
        granted(&ask(server, "PUT", "leader/l?ttl=8", "name=one")?)?;
        let two = Waiting::ask(server, "PUT", path, "name=two");
        await_waiting(server, 1)?;
        let before = server.open_connections()?;
        let two_too = Waiting::ask(server, "PUT", path, "name=two");
        server.await_open_connections(before + 1)?;
        let three = Waiting::ask(server, "PUT", path, "name=three");
        await_waiting(server, 2)?;
        let impatient = ask(server, "PUT", &format!("{path}&timeout=0"), "name=four")?;
        assert_eq!(impatient.status, 500, "{}", impatient.text());

        assert_eq!(granted(&two.answer()?)?, granted(&two_too.answer()?)?);
        assert!(!three.is_over());
        assert_eq!(ask(server, "GET", "leader/l", "")?.text(), "two");
        ask(server, "DELETE", "leader/l?name=two", "")?;
        granted(&three.answer()?)?;

        assert_eq!(ask(server, "GET", "leader/l", "")?.text(), "three");
        Ok(())
    })
}

#[test]
fn holders_places_and_order_survive_a_crash() -> Result<()> {
    trial(|server| {
        let first = granted(&acquire(server, "l?ttl=600", "value=a")?)?;
        let line = ["b", "c", "d"].map(|value| {
            let waits = Waiting::in_line(server, "l?ttl=600", &format!("value={value}"));
            waits.map(|waits| (value, waits))
        });
        let line = line.into_iter().collect::<Result<Vec<_>>>()?;
        let before = entries(server)?;

        server.crash_and_restart()?;
        for (_, waits) in line {
            ensure!(waits.answer().is_err(), "the server died");
        }
        assert_eq!(entries(server)?, before);
        assert_eq!(holder(server, "l?field=index")?, first.to_string());
        // They find their places again, whoever comes first.
        let again = ["d", "b", "c"]
            .map(|value| Waiting::ask(server, "POST", "lock/l?ttl=600", &format!("value={value}")));
        for value in ["a", "b", "c"] {
            assert_eq!(
                ask(server, "DELETE", &format!("lock/l?value={value}"), "")?.status,
                200
            );
        }

        assert_eq!(holder(server, "l")?, "d");
        let [d, _, _] = again;
        granted(&d.answer()?)?;
        Ok(())
    })
}

/// Whoever was in line when the server died and does not come back is passed over after its TTL.
#[test]
fn places_that_nobody_comes_back_for_lapse() -> Result<()> {
    trial(|server| {
        granted(&acquire(server, "l?ttl=600", "value=a")?)?;
        let lost = Waiting::in_line(server, "l?ttl=2", "value=b")?;

        server.crash_and_restart()?;
        ensure!(lost.answer().is_err(), "the server died");

        await_waiting(server, 0)?;
        assert_eq!(holder(server, "l")?, "a");
        Ok(())
    })
}

/// A stop of the server is no reason to lose one's place.
#[test]
fn a_server_that_stops_answers_those_who_wait_and_keeps_their_places() -> Result<()> {
    trial(|server| {
        granted(&acquire(server, "l?ttl=600", "value=a")?)?;
        let waits = Waiting::in_line(server, "l?ttl=600", "value=b")?;

        server.signal(rustix::process::Signal::INT)?;
        let answer = waits.answer()?;
        ensure!(answer.status == 500, "{} {}", answer.status, answer.text());
        server.await_exit()?;
        server.relaunch()?;
        server.await_ready()?;

        let values: Vec<_> = entries(server)?
            .iter()
            .map(|entry| entry["Value"].clone())
            .collect();
        assert_eq!(values, ["a", "b"]);
        Ok(())
    })
}
