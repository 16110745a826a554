//! How long a lock is without a holder when it is passed on by the watch recipe.
//!
//! One key, `n` contenders. Whoever holds it keeps it until all others watch the key, then releases it; the others
//! wake, all try to acquire it, one succeeds. The figure is the time from sending the release to having the answer
//! that the next one holds it. The herd of losers is part of the work; waiting for it to settle is not.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::task::{JoinSet, LocalSet};

use crate::wire::{Answer, Connection, request};

/// How often the holder looks whether the others watch, and the time it then gives their queries to arrive.
const SETTLE: Duration = Duration::from_millis(2);

/// What the contenders of one process know of each other; none of it decides who gets the lock.
struct Ring {
    key: String,
    contenders: usize,
    watching: Cell<usize>,
    released: Cell<Option<Instant>>,
    took: RefCell<Vec<Duration>>,
}

/// Passes one lock around between sessions for a while; answers how long each hand-off took.
pub(crate) fn measure(addr: SocketAddr, sessions: Vec<String>, window: Duration) -> Result<Vec<Duration>> {
    // A key of its own for each measurement: the last holder of an earlier one may still hold.
    let key = format!("bench/handoff/{}", sessions.first().context("no contenders")?);
    let ring = Rc::new(Ring {
        key,
        contenders: sessions.len(),
        watching: Cell::new(0),
        released: Cell::new(None),
        took: RefCell::default(),
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let mut contenders = JoinSet::new();
        for session in sessions {
            contenders.spawn_local(contend(addr, session, Rc::clone(&ring)));
        }
        tokio::select! {
            Some(ended) = contenders.join_next() => ended?.and_then(|()| bail!("a contender ended")),
            () = tokio::time::sleep(window) => Ok(()),
        }
    })?;
    let took = ring.took.take();
    ensure!(!took.is_empty(), "no hand-off within the window");
    Ok(took)
}

async fn contend(addr: SocketAddr, session: String, ring: Rc<Ring>) -> Result<()> {
    let mut connection = Connection::open(addr).await?;
    let verb = |verb: &str| {
        request(
            "PUT",
            &format!("/v1/kv/{}?{verb}={session}", ring.key),
            session.as_bytes(),
        )
    };
    let (acquire, release) = (verb("acquire"), verb("release"));
    loop {
        if is_true(&connection.call(&acquire).await?)? {
            if let Some(released) = ring.released.take() {
                ring.took.borrow_mut().push(released.elapsed());
            }
            ring.all_others_watch().await;
            ring.released.set(Some(Instant::now()));
            ensure!(
                is_true(&connection.call(&release).await?)?,
                "a release was refused"
            );
            // One look first, so that its own release does not wake it.
            let index = look(&mut connection, &ring, 0).await?.0;
            watch(&mut connection, &ring, index).await?;
        } else {
            let (index, free) = look(&mut connection, &ring, 0).await?;
            if !free {
                watch(&mut connection, &ring, index).await?;
            }
        }
    }
}

/// Waits until the key changes to being free.
async fn watch(connection: &mut Connection, ring: &Ring, mut index: u64) -> Result<()> {
    loop {
        ring.watching.set(ring.watching.get() + 1);
        let seen = look(connection, ring, index).await;
        ring.watching.set(ring.watching.get() - 1);
        let free;
        (index, free) = seen?;
        if free {
            return Ok(());
        }
    }
}

/// Reads the key, blocking if `index` is above 0; answers its index and whether nobody holds it.
async fn look(connection: &mut Connection, ring: &Ring, index: u64) -> Result<(u64, bool)> {
    let target = format!("/v1/kv/{}?index={index}&wait=60s", ring.key);
    let answer = connection.call(&request("GET", &target, b"")).await?;
    ensure!(answer.status == 200, "{}: {}", answer.status, answer.excerpt());
    let free = memchr::memmem::find(answer.body, b"\"Session\"").is_none();
    Ok((answer.index.context("a read without an index")?, free))
}

fn is_true(answer: &Answer<'_>) -> Result<bool> {
    ensure!(answer.status == 200, "{}: {}", answer.status, answer.excerpt());
    Ok(answer.body.trim_ascii() == b"true")
}

impl Ring {
    async fn all_others_watch(&self) {
        loop {
            tokio::time::sleep(SETTLE).await;
            if self.watching.get() == self.contenders - 1 {
                tokio::time::sleep(SETTLE).await;
                if self.watching.get() == self.contenders - 1 {
                    return;
                }
            }
        }
    }
}
