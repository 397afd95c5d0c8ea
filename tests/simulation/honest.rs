//! An honest worker: the library's own session, driven as a training loop would.

use solon::client::{ClientError, Session, Source};
use solon::pipeline::Begin;

use crate::dice::Dice;
use crate::judge::Judge;
use crate::network::Link;
use crate::scenario::{DEADLINE, Habit};
use crate::world::{Net, View};

/// One honest worker.
pub struct Honest {
    pub worker: u32,
    habit: Habit,
    dice: Dice,
    wired: Option<(Session, Link)>,
    back_at: u64,
    frozen_until: u64,
    /// The next round's gradient is there at this tick.
    computed_at: Option<u64>,
    /// A round was begun and not sent completely since this tick.
    sending_since: Option<u64>,
    /// The oldest round that has not ended, since when.
    oldest: (u64, u64),
    /// Why a loss of the session is no surprise, if it is none.
    pub excuse: Option<&'static str>,
    update: Vec<f32>,
    /// The session that has said where it is reached.
    reached: Option<u64>,
}

impl Honest {
    pub fn new(worker: usize, habit: Habit, view: &View<'_>) -> Honest {
        Honest {
            worker: worker as u32,
            habit,
            dice: Dice::new(view.scenario.weather, "honest", worker as u64, 0),
            wired: None,
            // Where all are waited for, some take their time.
            back_at: match view.scenario.job.begin {
                Begin::Any => 0,
                Begin::All => Dice::new(view.scenario.seed, "comes", worker as u64, 0).below(2 * DEADLINE),
            },
            frozen_until: 0,
            computed_at: None,
            sending_since: None,
            oldest: (0, 0),
            excuse: None,
            update: vec![0.0; view.scenario.job.plan.layout.dimension()],
            reached: None,
        }
    }

    /// The oldest round that this worker still waits for, if it has a session that should bring it.
    pub fn waits_for(&self, tick: u64) -> Option<u64> {
        if tick < self.frozen_until || self.excuse.is_some() {
            return None;
        }
        self.wired.as_ref()?.0.oldest()
    }

    /// Cuts its connection; with `lossy` what is under way is gone.
    pub fn cut(&mut self, lossy: bool, why: &'static str) {
        if let Some((_, link)) = &self.wired {
            link.cut(lossy);
            self.excuse = Some(why);
        }
    }

    /// One tick.
    pub fn act(&mut self, view: &View<'_>, net: &mut Net, judge: &mut Judge) {
        match self.habit {
            Habit::Absent => return,
            Habit::Crash(round) if view.closed >= round => {
                self.cut(true, "crashed");
                self.hang_up(view, net);
                return;
            }
            Habit::Flaky if !view.draining && self.dice.chance(0.02) => {
                if self.dice.chance(0.4) {
                    // It comes back before the daemon has noticed that it was gone.
                    self.hang_up(view, net);
                    self.back_at = 0;
                } else {
                    let lossy = self.dice.chance(0.7);
                    self.cut(lossy, "flaky");
                }
            }
            Habit::Freezes if !view.draining && self.dice.chance(0.01) => {
                self.frozen_until = view.tick + 10 + self.dice.below(80);
                self.excuse = Some("frozen");
            }
            _ => {}
        }
        if view.tick < self.frozen_until {
            return;
        }
        if self.wired.is_none() {
            if view.tick < self.back_at {
                return;
            }
            let Some(joined) = net.connect(self.worker, view) else { return };
            let session = Session::new(joined.connection, joined.welcome, view.scenario.job.number);
            self.wired = Some((session.expect("both sides make the same generator"), joined.link));
            (self.excuse, self.computed_at, self.sending_since) = (None, None, None);
        }
        self.work(view, net, judge);
        if self.habit == Habit::Freezes && self.excuse == Some("frozen") && view.tick > self.frozen_until + 30 {
            self.excuse = None;
        }
    }

    /// Its session is gone, and its links with it.
    fn hang_up(&mut self, view: &View<'_>, net: &mut Net) {
        if let Some((session, _)) = self.wired.take() {
            let vanishes = view.scenario.between.vanish && self.dice.chance(0.5);
            net.left(session.welcome().session, vanishes);
        }
    }

    /// Sees to the links with other workers that the daemon orders.
    fn link(&mut self, view: &View<'_>, net: &mut Net) {
        let Some((session, _)) = &mut self.wired else { return };
        let number = session.welcome().session;
        if session.relays() && self.reached.replace(number) != Some(number) {
            session.reach(None, 7);
        }
        while let Some((order, ends)) = session.next_link() {
            let mut expected = [self.worker, order.peer];
            expected.sort();
            assert_eq!([ends.listens, ends.dials], expected, "the higher index dials");
            net.fabric.order(self.worker, number, order, view.tick);
        }
        for made in net.fabric.take(self.worker, number, view.tick) {
            match made.end {
                Some(end) => session.link(made.peer, end.connection),
                None => session.no_link(made.peer),
            }
        }
    }

    fn work(&mut self, view: &View<'_>, net: &mut Net, judge: &mut Judge) {
        if view.scenario.job.relay.is_some() {
            self.link(view, net);
        }
        let Some((session, link)) = &mut self.wired else { return };
        let direct = self.worker.is_multiple_of(2);
        // Its end is also told by `collect` and `lost`.
        let _ = session.drive(view.now, direct.then_some(&mut self.update));
        while let Some(result) = session.collect(&mut self.update) {
            let over = matches!(result, Err(ClientError::AggregatorLost { .. }));
            judge.collected(self.worker as usize, result, &self.update);
            if over {
                break;
            }
        }
        if let Some(why) = session.lost() {
            judge.lost(self.worker as usize, why, self.excuse);
            self.hang_up(view, net);
            self.back_at = view.tick + 1 + self.dice.below(12);
            return;
        }
        let Some(oldest) = session.oldest() else { return };
        if self.oldest.0 != oldest {
            self.oldest = (oldest, view.tick);
        }
        if view.scenario.faults[self.worker as usize].is_some() && view.tick > self.oldest.1 + 4 * DEADLINE {
            // Its frames were lost, which a stream does not do: it begins again.
            link.cut(false);
            self.excuse = Some("waited too long");
            self.oldest.1 = view.tick;
            return;
        }
        if self.sending_since.is_none() {
            let next = session.next_round();
            if next >= view.end || next - oldest >= view.scenario.depth {
                return;
            }
            let slow = self.habit == Habit::Slow && !view.draining;
            let dice = &mut self.dice;
            let ready = *self.computed_at.get_or_insert_with(|| {
                let long = if slow && dice.chance(0.5) { dice.below(2 * DEADLINE) } else { 0 };
                view.tick + dice.below(view.scenario.compute + 1) + long
            });
            if view.tick < ready {
                return;
            }
            session.begin().expect("the window has room");
            (self.computed_at, self.sending_since) = (None, Some(view.tick));
        }
        let round = session.next_round() - 1;
        let group = view.scenario.job.plan.parameters.place(self.worker as usize).group;
        let gradients = view.gradients.of(round);
        if session.pump(Source::Separate(&gradients[group]), None) {
            self.sending_since = None;
        } else if self.sending_since.is_some_and(|since| view.tick > since + 3 * DEADLINE) {
            // Its credits were lost with its frames: only a new session brings them back.
            link.cut(false);
            self.excuse = Some("out of credits");
        }
    }
}
