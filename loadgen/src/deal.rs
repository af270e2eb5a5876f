//! Whose turn it is in an open loop with hot connections: a pure function of the place in the
//! schedule, as the [`pacer`](crate::pacer) is of time.
//!
//! Hot messages are spread evenly among the others: of the first `k` messages of a thread
//! `k x weight of the hot / weight of all`, rounded down, go to hot connections, which take turns,
//! and so do the others. Weights are whole numbers, so the shares are exact for ever, and the place
//! of a connection's message can be computed at any later moment.

use crate::{
    config::MILLION,
    pacer::{Pacer, stream_due},
};

/// One thread's part: its first connections are hot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deal {
    /// Connections of this thread.
    hot: usize,
    others: usize,
    /// What goes to them of `of_all`.
    hot_weight: u128,
    others_weight: u128,
    of_all: u128,
}

impl Deal {
    /// For a thread with `own` hot and other connections of `all` in the run: of a million messages
    /// of the run `share_millionths` go to hot ones, the same number to each.
    pub fn new(share_millionths: u64, all: [u64; 2], own: [usize; 2]) -> Self {
        let [all_hot, all_others] = all.map(u128::from);
        let [hot, others] = own;
        let (million, share) = (u128::from(MILLION), u128::from(share_millionths));
        let hot_weight = share * hot as u128 * all_others;
        let others_weight = (million - share) * others as u128 * all_hot;
        let of_all = million * all_hot * all_others;
        // Small numbers leave room for the places of a long schedule.
        let common = divisor(of_all, divisor(hot_weight, others_weight)).max(1);
        Self {
            hot,
            others,
            hot_weight: hot_weight / common,
            others_weight: others_weight / common,
            of_all: of_all / common,
        }
    }

    /// The schedule of this thread; `None` when it has nothing to send.
    pub fn pacer(&self, rate_per_s: f64, thread: usize) -> Option<Pacer> {
        Pacer::weighted(rate_per_s, self.weight(), self.of_all, thread)
    }

    /// Whether a connection is hot.
    pub fn is_hot(&self, conn: usize) -> bool {
        conn < self.hot
    }

    /// The connection that message `index` of the schedule belongs to, and its number there.
    pub fn turn(&self, index: u64) -> (usize, u64) {
        let hot_before = self.hot_before(index);
        if self.hot_before(index + 1) > hot_before {
            let hot = self.hot as u64;
            ((hot_before % hot) as usize, hot_before / hot)
        } else {
            let (before, others) = (index - hot_before, self.others as u64);
            (self.hot + (before % others) as usize, before / others)
        }
    }

    /// The place in the schedule of message `number` of a connection: where [`Self::turn`] gives
    /// both.
    pub fn index(&self, conn: usize, number: u64) -> u64 {
        let of_kind = |count: usize, conn: usize| u128::from(number) * count as u128 + conn as u128;
        let index = match conn.checked_sub(self.hot) {
            None => {
                let through = (of_kind(self.hot, conn) + 1) * self.weight();
                through.div_ceil(self.hot_weight) - 1
            }
            Some(other) => of_kind(self.others, other) * self.weight() / self.others_weight,
        };
        u64::try_from(index).unwrap_or(u64::MAX)
    }

    /// How many of the messages `0..due` belong to a connection.
    pub fn due(&self, due: u64, conn: usize) -> u64 {
        let hot = self.hot_before(due);
        match conn.checked_sub(self.hot) {
            None => stream_due(hot, conn, self.hot),
            Some(other) => stream_due(due - hot, other, self.others),
        }
    }

    fn weight(&self) -> u128 {
        self.hot_weight + self.others_weight
    }

    /// How many of the messages `0..index` are hot.
    fn hot_before(&self, index: u64) -> u64 {
        (u128::from(index) * self.hot_weight / self.weight()) as u64
    }
}

/// The greatest common divisor.
fn divisor(a: u128, b: u128) -> u128 {
    if b == 0 { a } else { divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nine_of_ten_go_to_the_one_hot_connection_and_the_others_take_turns() {
        let deal = Deal::new(900_000, [1, 3], [1, 3]);
        let turns: Vec<_> = (0..31).map(|index| deal.turn(index)).collect();
        let of = |conn: usize| turns.iter().filter(|turn| turn.0 == conn).count();
        assert_eq!([0, 1, 2, 3].map(of), [27, 2, 1, 1]);
        assert_eq!(turns[..3], [(1, 0), (0, 0), (0, 1)]);
        assert_eq!([10, 20, 30].map(|at| turns[at]), [(2, 0), (3, 0), (1, 1)]);
        assert!(deal.is_hot(0) && !deal.is_hot(1));
    }

    #[test]
    fn a_thread_may_have_connections_of_one_kind_or_none() {
        let deal = |own| Deal::new(900_000, [1, 3], own);
        let [hot, others] = [deal([1, 0]), deal([0, 2])];
        assert_eq!([0, 1, 2].map(|at| hot.turn(at)), [(0, 0), (0, 1), (0, 2)]);
        assert_eq!(
            [0, 1, 2].map(|at| others.turn(at)),
            [(0, 0), (1, 0), (0, 1)]
        );
        assert_eq!(deal([0, 0]).pacer(1e3, 0), None);
    }

    proptest! {
        #[test]
        fn every_message_has_one_place_and_the_shares_are_exact(
            share in 1..MILLION,
            own in [0_usize..40, 0_usize..40],
            more in [0_u64..40, 0_u64..40],
            due in 0_u64..3_000,
            far in 0_u64..1_000_000_000_000,
        ) {
            prop_assume!(own != [0, 0]);
            let all = [0, 1].map(|kind| (own[kind] as u64 + more[kind]).max(1));
            let deal = Deal::new(share, all, own);
            let mut counts = vec![0; own[0] + own[1]];
            for index in 0..due {
                let (conn, number) = deal.turn(index);
                prop_assert_eq!(number, counts[conn], "in order on each connection");
                prop_assert_eq!(deal.index(conn, number), index);
                counts[conn] += 1;
            }
            for (conn, count) in counts.iter().enumerate() {
                prop_assert_eq!(deal.due(due, conn), *count);
                prop_assert!(deal.index(conn, *count) >= due);
            }
            let (conn, number) = deal.turn(far);
            prop_assert_eq!(deal.index(conn, number), far);
            // To the message, and equal among those of a kind.
            let hot: u64 = counts[..own[0]].iter().sum();
            prop_assert_eq!(u128::from(hot), u128::from(due) * deal.hot_weight / deal.weight());
            for kind in [&counts[..own[0]], &counts[own[0]..]] {
                let range = kind.iter().min().zip(kind.iter().max());
                prop_assert!(range.is_none_or(|(least, most)| most - least <= 1));
            }
        }

        #[test]
        fn threads_add_up_to_the_rate_and_its_shares(
            share in 1..MILLION,
            rate in 10.0_f64..100_000.0,
            own in prop::collection::vec([1_usize..20, 1_usize..20], 1..6),
        ) {
            let all = [0, 1].map(|kind| own.iter().map(|own| own[kind] as u64).sum::<u64>());
            let (mut hot, mut others) = (0, 0);
            for (thread, own) in own.iter().enumerate() {
                let deal = Deal::new(share, all, *own);
                let due = deal.pacer(rate, thread).unwrap().due(10_000_000_000);
                hot += deal.hot_before(due);
                others += due - deal.hot_before(due);
            }
            let share = share as f64 / MILLION as f64;
            // Each thread rounds once.
            let within = own.len() as f64 * 2.0 + 1.0;
            prop_assert!((hot as f64 - 10.0 * rate * share).abs() <= within, "{hot}");
            prop_assert!((others as f64 - 10.0 * rate * (1.0 - share)).abs() <= within, "{others}");
        }
    }
}
