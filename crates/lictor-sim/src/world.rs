//! One run: a seed decides everything, and all time is virtual.

mod end;
mod faults;

use std::collections::BTreeMap;

use lictor_proto::RaftId;
use lictor_raft::{Membership, SplitMix};

use crate::check::{Breach, Checked, Locks, Queues, Raft};
use crate::client::{Client, Histories, Surroundings};
use crate::network::Network;
use crate::request::{Body, Caller, Reply};
use crate::server::{Act, Context, Counts, Inner, Micros, Server, callers};
use faults::Operator;

const SECOND: Micros = 1_000_000;
/// How long a client waits for an answer.
const PATIENCE: Micros = 2 * SECOND;

/// A promise was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The run it happened in.
    pub seed: u64,
    /// Microseconds into the run.
    pub at: u64,
    /// What was broken.
    pub breach: Breach,
}

/// What happened in a run without a breach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    /// What was counted.
    pub counts: Counts,
    /// Keys whose history was too tangled to decide.
    pub undecided: u64,
    /// A digest of all that happened: equal for runs of one seed.
    pub digest: u32,
}

#[derive(Debug)]
enum Event {
    Server {
        id: u64,
        life: u64,
        inner: Inner,
    },
    Arrival {
        from: u64,
        to: u64,
        body: Body,
    },
    Start(u64),
    Resume {
        id: u64,
        life: u64,
    },
    Client(usize),
    GiveUp {
        client: usize,
        call: u64,
    },
    Fault,
    /// A follower is cut off from the leader.
    CutOff {
        leader: u64,
        tempted: u64,
    },
    /// A voter that still hears from the leader is restarted, and cut off from it.
    RestartApart {
        leader: u64,
        voter: u64,
    },
    Operate,
    Heal,
    Look,
}

/// Everything.
pub(crate) struct World {
    now: Micros,
    /// Orders events of one time, and all that clients do.
    moment: u64,
    queue: BTreeMap<(Micros, u64), Event>,
    random: SplitMix,
    servers: BTreeMap<u64, Server>,
    network: Network,
    clients: Vec<Client>,
    /// The call that each client waits for.
    calls: Vec<Option<u64>>,
    histories: Histories,
    raft: Raft,
    locks: Locks,
    queues: Queues,
    counts: Counts,
    operator: Operator,
    /// Clients ask nothing before this time.
    quiet_until: Micros,
    /// Faults end at this time.
    heals_at: Micros,
    healed: bool,
    done: bool,
    digest: u32,
    verbose: bool,
}

/// Runs one seed.
///
/// # Errors
/// [`Failure`] with the breach that was found first.
pub fn run(seed: u64, verbose: bool) -> Result<Report, Failure> {
    let mut world = World::new(seed, verbose);
    let outcome = world.live();
    let failure = |breach| Failure {
        seed,
        at: world.now,
        breach,
    };
    let undecided = outcome.map_err(failure)?;
    Ok(Report {
        counts: world.counts,
        undecided,
        digest: world.digest,
    })
}

impl World {
    fn new(seed: u64, verbose: bool) -> Self {
        let mut random = SplitMix(seed);
        let size = [3, 3, 3, 5][usize::try_from(random.below(4)).unwrap_or(0)];
        let members = Membership::of_voters((1..=size).map(RaftId));
        let servers: BTreeMap<u64, Server> = (1..=size)
            .map(|id| (id, Server::founder(id, 95 + random.below(11), &members)))
            .collect();
        let clients = 6 + usize::try_from(random.below(5)).unwrap_or(0);
        let mut world = Self {
            now: 0,
            moment: 0,
            queue: BTreeMap::new(),
            servers,
            network: Network::default(),
            clients: (0..clients).map(Client::new).collect(),
            calls: vec![None; clients],
            histories: Histories::default(),
            raft: Raft::default(),
            locks: Locks::default(),
            queues: Queues::default(),
            counts: Counts::default(),
            operator: Operator::default(),
            quiet_until: 0,
            heals_at: (5 + random.below(10)) * SECOND,
            healed: false,
            done: false,
            digest: 0,
            verbose,
            random,
        };
        for id in 1..=size {
            let at = world.random.below(200_000);
            world.schedule(at, Event::Start(id));
        }
        for client in 0..clients {
            let at = SECOND / 2 + world.random.below(SECOND);
            world.schedule(at, Event::Client(client));
        }
        world.schedule(2 * SECOND, Event::Fault);
        world.schedule(SECOND, Event::Operate);
        world.schedule(world.heals_at, Event::Heal);
        world
    }

    /// Answers the number of histories that could not be decided.
    fn live(&mut self) -> Result<u64, Breach> {
        while !self.done {
            let Some(((at, moment), event)) = self.queue.pop_first() else {
                return Err(Breach("nothing happens any more".to_owned()));
            };
            self.now = at;
            self.digest = crc32c::crc32c_append(self.digest, &at.to_le_bytes());
            self.digest = crc32c::crc32c_append(self.digest, &moment.to_le_bytes());
            self.happen(event)?;
            self.check_leases()?;
        }
        self.final_checks()
    }

    fn schedule(&mut self, after: Micros, event: Event) {
        self.moment += 1;
        self.queue.insert((self.now + after, self.moment), event);
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.verbose {
            eprintln!("{:>7}.{:03} ms  {}", self.now / 1000, self.now % 1000, what());
        }
    }

    fn happen(&mut self, event: Event) -> Checked {
        match event {
            Event::Server { id, life, inner } => self.in_server(id, life, inner),
            Event::Arrival { from, to, body } => {
                let life = self.servers.get(&to).map_or(0, |server| server.life);
                if self.network.is_cut(from, to) {
                    return Ok(());
                }
                self.in_server(to, life, Inner::Packet { from, body })
            }
            Event::Start(id) => self.start(id),
            Event::Resume { id, life } => self.resume(id, life),
            Event::Client(client) => self.client_asks(client),
            Event::GiveUp { client, call } => {
                for server in self.servers.values_mut().filter(|server| !server.paused) {
                    server.hang_up(client, call);
                }
                self.answer(client, call, &Reply::Unknown)
            }
            Event::Fault => self.fault(),
            Event::CutOff { .. } if self.healed => Ok(()),
            Event::CutOff { leader, tempted } => {
                self.network.reconnect();
                self.network.cut(leader, tempted);
                self.network.cut(tempted, leader);
                Ok(())
            }
            Event::RestartApart { leader, voter } => self.restart_apart(leader, voter),
            Event::Operate => self.operate(),
            Event::Heal => {
                self.heal();
                Ok(())
            }
            Event::Look => self.look(),
        }
    }

    fn in_server(&mut self, id: u64, life: u64, inner: Inner) -> Checked {
        let Some(server) = self.servers.get_mut(&id).filter(|server| server.life == life) else {
            return Ok(());
        };
        if server.paused {
            server.stash.push(inner);
            return Ok(());
        }
        self.with(id, |server, context| server.handle(inner, context))
    }

    /// Lets a server work, and sees to what it makes happen.
    fn with<T>(
        &mut self,
        id: u64,
        work: impl FnOnce(&mut Server, &mut Context<'_>) -> Result<T, Breach>,
    ) -> Result<T, Breach> {
        let mut acts = Vec::new();
        let Some(server) = self.servers.get_mut(&id) else {
            return Err(Breach(format!("there is no server {id}")));
        };
        let mut context = Context {
            now: self.now,
            random: &mut self.random,
            raft: &mut self.raft,
            locks: &mut self.locks,
            queues: &mut self.queues,
            counts: &mut self.counts,
            acts: &mut acts,
        };
        let done = work(server, &mut context)?;
        let life = server.life;
        for act in acts {
            match act {
                Act::Later { after, inner } => self.schedule(after, Event::Server { id, life, inner }),
                Act::Answer { client, call, reply } => self.answer(client, call, &reply)?,
                Act::Send { to, body } => {
                    for after in self.network.arrivals(&body, &mut self.random) {
                        let body = body.clone();
                        self.schedule(after, Event::Arrival { from: id, to, body });
                    }
                }
            }
        }
        Ok(done)
    }

    fn start(&mut self, id: u64) -> Checked {
        if self
            .servers
            .get(&id)
            .is_none_or(|server| server.process.is_some())
        {
            return Ok(());
        }
        self.say(|| format!("server {id} starts"));
        self.with(id, Server::start)
    }

    /// What waited for a paused process comes over it all at once.
    fn resume(&mut self, id: u64, life: u64) -> Checked {
        let Some(server) = self.servers.get_mut(&id).filter(|server| server.life == life) else {
            return Ok(());
        };
        if !server.paused {
            return Ok(());
        }
        server.paused = false;
        let stash = std::mem::take(&mut server.stash);
        self.say(|| format!("server {id} resumes"));
        for inner in stash {
            self.in_server(id, life, inner)?;
            self.check_leases()?;
        }
        Ok(())
    }

    /// A process dies; its clients' connections break.
    fn kill(&mut self, id: u64, power: bool) -> Checked {
        let process = self.with(id, |server, context| server.die(power, context))?;
        let Some(process) = process else {
            return Ok(());
        };
        for caller in callers(&process) {
            if let Caller::Client { client, call } = caller {
                self.answer(client, call, &Reply::Unknown)?;
            }
        }
        Ok(())
    }

    fn client_asks(&mut self, client: usize) -> Checked {
        if self.healed && self.now > self.heals_at + 2 * SECOND {
            return Ok(());
        }
        if self.now < self.quiet_until {
            let after = self.quiet_until - self.now + self.random.below(50_000);
            self.schedule(after, Event::Client(client));
            return Ok(());
        }
        self.moment += 1;
        let call = self.moment;
        let mut around = Surroundings {
            now_ms: self.now / 1000,
            moment: call,
            random: &mut self.random,
            histories: &mut self.histories,
            locks: &mut self.locks,
            queues: &mut self.queues,
        };
        let Some(request) = self.clients[client].ask(&mut around) else {
            self.schedule(50_000, Event::Client(client));
            return Ok(());
        };
        self.calls[client] = Some(call);
        self.schedule(PATIENCE, Event::GiveUp { client, call });
        let at = self.random.below(self.servers.len() as u64);
        let server = self.servers.values().nth(usize::try_from(at).unwrap_or(0));
        let Some((id, runs, paused)) =
            server.map(|server| (server.id, server.process.is_some(), server.paused))
        else {
            return self.answer(client, call, &Reply::Refused);
        };
        if !runs {
            return self.answer(client, call, &Reply::Refused);
        }
        if paused {
            // It is accepted by nobody, and times out.
            return Ok(());
        }
        let caller = Caller::Client { client, call };
        self.with(id, |server, context| {
            server.request(caller, request, context);
            Ok(())
        })
    }

    fn answer(&mut self, client: usize, call: u64, reply: &Reply) -> Checked {
        if self.calls[client].take_if(|waits| *waits == call).is_none() {
            return Ok(());
        }
        if !matches!(reply, Reply::Unknown | Reply::Refused) {
            self.counts.answered += 1;
        }
        self.moment += 1;
        let mut around = Surroundings {
            now_ms: self.now / 1000,
            moment: self.moment,
            random: &mut self.random,
            histories: &mut self.histories,
            locks: &mut self.locks,
            queues: &mut self.queues,
        };
        self.clients[client].hear(reply, &mut around)?;
        let pause = match reply {
            Reply::Refused => 20_000 + self.random.below(50_000),
            _ => self.random.below(30_000),
        };
        self.schedule(pause, Event::Client(client));
        Ok(())
    }

    fn check_leases(&self) -> Checked {
        let members = self.servers.values().filter_map(|server| {
            let status = server.status()?;
            Some((
                server.id,
                status.term,
                status.is_leader,
                server.has_lease(self.now),
            ))
        });
        Raft::leases(&members.collect::<Vec<_>>())
    }
}
