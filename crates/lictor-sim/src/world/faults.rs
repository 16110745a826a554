//! What goes wrong, and the operator who replaces servers.

use lictor_proto::RaftId;
use lictor_raft::{Input, MemberChange, ProposalId};

use super::{Event, SECOND, World};
use crate::check::Checked;
use crate::server::Server;

/// Entries that a learner may be behind to become a voter.
const CAUGHT_UP: u64 = 20;
/// Numbers of the operator's proposals, away from the servers' own.
const OPERATOR: u64 = 1 << 62;

/// Who looks after the members.
#[derive(Debug, Default)]
pub(super) struct Operator {
    /// A dead server, and the one to take its place.
    replacing: Option<(u64, u64)>,
    proposals: u64,
}

impl Operator {
    pub(super) fn is_idle(&self) -> bool {
        self.replacing.is_none()
    }
}

impl World {
    fn pick(&mut self) -> u64 {
        let at = self.random.below(self.servers.len() as u64);
        let id = self.servers.keys().nth(usize::try_from(at).unwrap_or(0));
        id.copied().unwrap_or(0)
    }

    pub(super) fn fault(&mut self) -> Checked {
        if self.healed {
            return Ok(());
        }
        let next = 100_000 + self.random.below(1_400_000);
        self.schedule(next, Event::Fault);
        let id = self.pick();
        match self.random.below(100) {
            0..12 => self.isolate(id),
            12..24 => self.cut_one_way(),
            24..40 => {
                self.say(|| "the network is whole again".to_owned());
                self.network.reconnect();
            }
            40..52 => {
                let power = self.random.below(2) == 0;
                self.crash(id, power)?;
            }
            52..54 => {
                for id in self.servers.keys().copied().collect::<Vec<_>>() {
                    self.crash(id, true)?;
                }
            }
            54..64 => self.pause(id),
            64..74 => self.slow_disk(id),
            74..84 => self.bad_network(),
            84..92 => {
                let (leader, to) = (self.leader(), RaftId(self.pick()));
                if let Some(leader) = leader {
                    self.say(|| format!("server {leader} is to hand over to {to}"));
                    self.with(leader, |server, context| {
                        server.input(Input::Transfer(to), context)
                    })?;
                }
            }
            92..96 => self.replace(id)?,
            _ => self.tempt(),
        }
        Ok(())
    }

    fn isolate(&mut self, id: u64) {
        self.say(|| format!("server {id} is cut off"));
        for other in self.servers.keys().copied().filter(|&other| other != id) {
            self.network.cut(id, other);
            self.network.cut(other, id);
        }
    }

    fn cut_one_way(&mut self) {
        for _ in 0..=self.random.below(3) {
            let (from, to) = (self.pick(), self.pick());
            self.say(|| format!("nothing gets from {from} to {to}"));
            self.network.cut(from, to);
        }
    }

    fn crash(&mut self, id: u64, power: bool) -> Checked {
        self.say(|| format!("server {id} dies, power cut: {power}"));
        self.kill(id, power)?;
        let after = 20_000 + self.random.below(3 * SECOND);
        self.schedule(after, Event::Start(id));
        Ok(())
    }

    /// A follower is cut off from the leader and wants to lead; soon after, the voter that refuses it, since it hears from
    /// the leader, forgets that in a restart. Nobody writes meanwhile, so that the tempted one's log is as good as any.
    fn tempt(&mut self) {
        let (tempted, voter) = (self.pick(), self.pick());
        let Some(leader) = self.leader() else { return };
        if tempted == leader || voter == leader || voter == tempted {
            return;
        }
        self.say(|| format!("server {tempted} is tempted to lead in the place of {leader}"));
        let after = 500_000 + self.random.below(600_000);
        self.quiet_until = self.now + 2 * after;
        // What is under way comes to its end first.
        self.schedule(100_000, Event::CutOff { leader, tempted });
        self.schedule(after, Event::RestartApart { leader, voter });
    }

    pub(super) fn restart_apart(&mut self, leader: u64, voter: u64) -> Checked {
        if self.healed || !self.servers.contains_key(&voter) {
            return Ok(());
        }
        self.say(|| format!("server {voter} restarts, and hears {leader} no more"));
        self.network.cut(leader, voter);
        self.network.cut(voter, leader);
        self.kill(voter, false)?;
        let after = 500 + self.random.below(10_000);
        self.schedule(after, Event::Start(voter));
        Ok(())
    }

    fn pause(&mut self, id: u64) {
        let after = 20_000 + self.random.below(2 * SECOND);
        let Some(server) = self.servers.get_mut(&id) else {
            return;
        };
        if server.paused || server.process.is_none() {
            return;
        }
        server.paused = true;
        let life = server.life;
        self.say(|| format!("server {id} is paused"));
        self.schedule(after, Event::Resume { id, life });
    }

    fn slow_disk(&mut self, id: u64) {
        let (long, sync) = (self.random.below(4 * SECOND), 5_000 + self.random.below(SECOND));
        self.say(|| format!("the disk of {id} needs {} ms for a sync", sync / 1000));
        let now = self.now;
        if let Some(server) = self.servers.get_mut(&id) {
            (server.slow_until, server.slow_sync) = (now + long, sync);
        }
    }

    fn bad_network(&mut self) {
        self.network.lost = [0, 10, 100, 300][usize::try_from(self.random.below(4)).unwrap_or(0)];
        self.network.doubled = self.random.below(100);
        self.network.late = self.random.below(200);
        self.network.late_by = self.random.below(SECOND / 2);
        let network = &self.network;
        self.say(|| format!("{network:?}"));
    }

    /// Its disk is lost: another server takes its place.
    fn replace(&mut self, old: u64) -> Checked {
        if !self.operator.is_idle() {
            return Ok(());
        }
        self.kill(old, true)?;
        self.servers.remove(&old);
        let new = 1 + self.histories.last_value.max(100) * 10 + old;
        let server = Server::empty(new, 95 + self.random.below(11));
        self.say(|| format!("server {old} is lost, {new} is to take its place"));
        self.servers.insert(new, server);
        self.operator.replacing = Some((old, new));
        self.schedule(0, Event::Start(new));
        Ok(())
    }

    pub(super) fn leader(&self) -> Option<u64> {
        let leads = self.servers.values().filter_map(|server| {
            let status = server.status().filter(|status| status.is_leader)?;
            (!server.paused).then_some((status.term, server.id))
        });
        leads.max().map(|(_, id)| id)
    }

    /// One joint step puts the new server, as a learner, in the place of the old; it becomes a voter once it has
    /// caught up.
    pub(super) fn operate(&mut self) -> Checked {
        self.schedule(SECOND / 5, Event::Operate);
        let (Some((old, new)), Some(leader)) = (self.operator.replacing, self.leader()) else {
            return Ok(());
        };
        let Some(process) = self
            .servers
            .get(&leader)
            .and_then(|server| server.process.as_ref())
        else {
            return Ok(());
        };
        let core = process.core();
        let members = core.members();
        let changes = if members.is_joint() {
            return Ok(());
        } else if members.names(RaftId(old)) {
            let (new, old) = (RaftId(new), RaftId(old));
            vec![MemberChange::AddLearner(new), MemberChange::Remove(old)]
        } else if members.voters().any(|voter| voter == RaftId(new)) {
            self.say(|| format!("server {new} has taken the place of {old}"));
            self.counts.replaced += 1;
            self.operator.replacing = None;
            return Ok(());
        } else {
            let peer = core.peers().into_iter().find(|peer| peer.id == RaftId(new));
            if peer.is_none_or(|peer| peer.lag_entries > CAUGHT_UP) {
                return Ok(());
            }
            vec![MemberChange::AddVoter(RaftId(new))]
        };
        self.operator.proposals += 1;
        let input = Input::ChangeMembers {
            id: ProposalId(OPERATOR + self.operator.proposals),
            changes,
            context: Vec::new(),
        };
        self.with(leader, |server, context| server.input(input, context))
    }
}
