//! Snapshots between servers: a pinned view, fetched as the stream that the real one is.

use bytes::Bytes;
use lictor_proto::RaftId;
use lictor_raft::{Input, LogPosition, Membership, StateMark};
use lictor_state::snapshot::{self, Receiver};
use lictor_state::{Dirty, State};

use super::{Act, Context, Durable, Inner, Server};
use crate::check::{Breach, Checked};
use crate::request::Body;

/// How long a view is kept for its receiver.
const PIN_MS: u64 = 4_000;
/// How long a receiver waits for the rows.
const FETCH_MS: u64 = 1_500;
/// More than any state here holds.
const LIMIT_BYTES: u64 = 1 << 24;

/// A view that is kept for a follower.
pub(super) struct Pin {
    to: RaftId,
    state: State,
}

/// A snapshot on its way in.
#[derive(Debug, Clone)]
pub(super) struct Installing {
    from: u64,
    position: LogPosition,
    members: Membership,
    pin: u64,
}

impl Installing {
    pub(super) fn new(
        from: u64,
        position: LogPosition,
        members: Membership,
        descriptor: &[u8],
    ) -> Result<Self, Breach> {
        let pin = descriptor.try_into().map(u64::from_be_bytes);
        let pin = pin.map_err(|_| Breach("a descriptor was changed on its way".to_owned()))?;
        Ok(Self {
            from,
            position,
            members,
            pin,
        })
    }
}

impl Server {
    /// Pins a view for a follower.
    pub(super) fn pin(&mut self, to: RaftId, context: &mut Context<'_>) -> Checked {
        let after = self.span(PIN_MS);
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        let pin = process.number();
        let state = process.state.clone();
        let (index, term) = state.applied();
        let members = process.members.clone();
        process.pins.insert(pin, Pin { to, state });
        context.later(Inner::PinExpires(pin), after);
        let input = Input::SnapshotReady {
            to,
            position: LogPosition { index, term },
            members,
            descriptor: pin.to_be_bytes().to_vec(),
        };
        self.input(input, context)
    }

    /// The view is not needed any more, or was kept long enough.
    pub(super) fn unpin(&mut self, pin: u64, ok: bool, context: &mut Context<'_>) -> Checked {
        let pin = self
            .process
            .as_mut()
            .and_then(|process| process.pins.remove(&pin));
        match pin {
            Some(Pin { to, .. }) => self.input(Input::SnapshotSent { to, ok }, context),
            None => Ok(()),
        }
    }

    pub(super) fn send_rows(&mut self, to: u64, life: u64, pin: u64, context: &mut Context<'_>) -> Checked {
        let Some(process) = &self.process else {
            return Ok(());
        };
        let mut bytes = Vec::new();
        let rows = match process.pins.get(&pin) {
            None => None,
            Some(pin) => {
                let written = snapshot::write(&pin.state, &pin.state.meta(), &mut bytes);
                written.map_err(|error| Breach(format!("a snapshot cannot be written: {error}")))?;
                Some(Bytes::from(bytes))
            }
        };
        let body = Body::Rows { life, pin, rows };
        context.acts.push(Act::Send { to, body });
        Ok(())
    }

    /// Apply has come to the snapshot: it waits for the rows.
    pub(super) fn fetch(&mut self, installing: Installing, context: &mut Context<'_>) {
        let (life, after) = (self.life, self.span(FETCH_MS));
        let Some(process) = &mut self.process else { return };
        let (to, pin) = (installing.from, installing.pin);
        context.later(Inner::FetchFails(installing.position), after);
        let body = Body::Fetch { life, pin };
        context.acts.push(Act::Send { to, body });
        process.installing = Some(installing);
    }

    pub(super) fn fetch_failed(&mut self, position: LogPosition, context: &mut Context<'_>) -> Checked {
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        let due = |installing: &mut Installing| installing.position == position;
        if process.installing.take_if(due).is_none() {
            return Ok(());
        }
        let ok = false;
        self.input(Input::Installed { position, ok }, context)?;
        self.apply_if_idle(context);
        Ok(())
    }

    /// The rows are there: they are checked and durably take the place of the state.
    pub(super) fn rows_came(
        &mut self,
        from: u64,
        life: u64,
        pin: u64,
        rows: Option<Bytes>,
        context: &mut Context<'_>,
    ) -> Checked {
        let clock = self.clock(context.now);
        let Some(process) = self.process.as_mut().filter(|_| life == self.life) else {
            return Ok(());
        };
        let due = |installing: &mut Installing| (installing.from, installing.pin) == (from, pin);
        let Some(installing) = process.installing.take_if(due) else {
            return Ok(());
        };
        let position = installing.position;
        let Some(rows) = rows else {
            process.installing = Some(installing);
            return self.fetch_failed(position, context);
        };
        let received = Receiver::new(LIMIT_BYTES).read(&mut rows.as_ref());
        let received = received.map_err(|error| Breach(format!("a snapshot cannot be read: {error}")))?;
        process.state = received.state.clone();
        process.members = installing.members.clone();
        // What was to be folded lies before the snapshot.
        process.effects.clear();
        process.dirty.push(Dirty::All);
        self.durable = Durable {
            state: received.state,
            mark: StateMark {
                applied: position,
                installed: true,
                members: installing.members,
            },
        };
        context.counts.installed += 1;
        let body = Body::Fetched { pin };
        context.acts.push(Act::Send { to: from, body });
        let ok = true;
        self.input(Input::Installed { position, ok }, context)?;
        self.publish(clock, context)?;
        self.apply_if_idle(context);
        Ok(())
    }
}
