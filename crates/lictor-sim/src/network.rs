//! The network between servers: it delays, loses, doubles, reorders and cuts.

use std::collections::BTreeSet;

use lictor_raft::SplitMix;

use crate::request::Body;
use crate::server::Micros;

/// What it does to packets.
#[derive(Debug, Default)]
pub(crate) struct Network {
    /// From whom to whom nothing gets through.
    cut: BTreeSet<(u64, u64)>,
    /// Packets lost, and doubled, in a thousand.
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    /// Packets that are late by up to `late_by`, in a thousand.
    pub(crate) late: u64,
    pub(crate) late_by: Micros,
}

impl Network {
    pub(crate) fn heal(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn reconnect(&mut self) {
        self.cut.clear();
    }

    pub(crate) fn cut(&mut self, from: u64, to: u64) {
        self.cut.insert((from, to));
    }

    pub(crate) fn is_cut(&self, from: u64, to: u64) -> bool {
        self.cut.contains(&(from, to))
    }

    /// After what times a packet arrives. Calls travel on connections that never double them, and a server sends none
    /// twice: what was carried out twice would be answered wrongly.
    pub(crate) fn arrivals(&self, body: &Body, random: &mut SplitMix) -> Vec<Micros> {
        let mut times = Vec::new();
        let twice = random.below(1000) < self.doubled && matches!(body, Body::Raft(_));
        let copies = 1 + u64::from(twice);
        for _ in 0..copies {
            if random.below(1000) < self.lost {
                continue;
            }
            let late = if random.below(1000) < self.late {
                random.below(self.late_by.max(1))
            } else {
                0
            };
            times.push(80 + random.below(400) + late);
        }
        times
    }
}
