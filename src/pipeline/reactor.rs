//! One thread that steps a list of stages, and how it waits when none of them has anything to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use super::board::{Board, Counter};
use super::measured::add;
use super::{Context, Progress, Stage};
use crate::memory::Bell;
use crate::memory::sync::Waker;

const BELL: Token = Token(usize::MAX);
/// Events taken from the kernel at once.
const EVENTS: usize = 256;
/// A parked reactor looks up at least this often.
const LOOK_UP: Duration = Duration::from_millis(500);
/// How long a reactor looks on before it parks: a wake-up by the kernel takes about as long.
const LOOK_ON: Duration = Duration::from_micros(50);
/// While stages have work, sockets are asked for readiness once in so many steps.
const STEPS_PER_POLL: usize = 4;

/// What a reactor does when its stages have nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Sleeps until a socket, a bell or a timer wakes it: right where there are few cores.
    Park,
    /// Gives the core to whoever wants it, and looks again.
    Yield,
    /// Looks again at once: the least delay, and a whole core.
    Spin,
    /// Looks again for a moment, then sleeps: never with more reactors than cores.
    LookThenPark,
}

impl Idle {
    /// Does a reactor ever sleep, so that something must wake it?
    pub fn sleeps(self) -> bool {
        matches!(self, Idle::Park | Idle::LookThenPark)
    }
}

/// Why a reactor cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ReactorError {
    /// The operating system gives no poll.
    #[error("cannot create an event queue (epoll): {0}")]
    Poll(std::io::Error),
}

/// What a reactor shows of itself while it runs.
#[derive(Debug, Default)]
pub struct Pulse {
    turns: AtomicU64,
    busy_ns: AtomicU64,
}

impl Pulse {
    /// How often it has stepped its stages. It rises at least every second, or the reactor hangs.
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// For how long its stages had something to do.
    pub fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy_ns.load(Ordering::Relaxed))
    }
}

/// Steps stages until it is told to stop.
pub struct Reactor {
    poll: Poll,
    bell: Arc<Bell>,
    idle: Idle,
    board: Option<Arc<Board>>,
    pulse: Arc<Pulse>,
}

impl Reactor {
    /// A reactor with its own event queue.
    ///
    /// # Errors
    /// If the operating system has none left.
    pub fn new(idle: Idle) -> Result<Reactor, ReactorError> {
        let poll = Poll::new().map_err(ReactorError::Poll)?;
        let waker = Waker::new(poll.registry(), BELL).map_err(ReactorError::Poll)?;
        Ok(Reactor { poll, bell: Arc::new(Bell::new(waker)), idle, board: None, pulse: Arc::default() })
    }

    /// Rings when there is work for this reactor.
    pub fn bell(&self) -> Arc<Bell> {
        self.bell.clone()
    }

    /// What it shows of itself.
    pub fn pulse(&self) -> Arc<Pulse> {
        self.pulse.clone()
    }

    /// Counts its system calls there, and for how long each stage was busy.
    pub fn count_on(&mut self, board: Arc<Board>) {
        self.board = Some(board);
    }

    /// Steps `stages` until `over`. Call it on the thread that is to do the work.
    ///
    /// # Errors
    /// If waiting for events fails.
    pub fn run(&mut self, stages: &mut [Box<dyn Stage>], over: impl Fn() -> bool) -> Result<(), ReactorError> {
        let mut events = Events::with_capacity(EVENTS);
        let bell = self.bell();
        let mut steps = 0;
        let mut idle_since: Option<Instant> = None;
        while !over() {
            let busy = self.step(stages);
            steps += 1;
            if busy {
                idle_since = None;
                if steps % STEPS_PER_POLL == 0 {
                    self.look(&mut events, Some(Duration::ZERO), stages)?;
                }
                continue;
            }
            match self.idle {
                Idle::LookThenPark if idle_since.get_or_insert_with(Instant::now).elapsed() < LOOK_ON => {
                    self.look(&mut events, Some(Duration::ZERO), stages)?;
                    std::hint::spin_loop();
                }
                Idle::Park | Idle::LookThenPark => {
                    let mut waiter = (&mut *self, &mut *stages);
                    bell.park(
                        &mut waiter,
                        |(reactor, stages)| over() || reactor.step(stages),
                        |(reactor, stages)| reactor.look(&mut events, Some(until_timer(stages)), stages),
                    )?;
                    idle_since = None;
                }
                Idle::Yield => {
                    self.look(&mut events, Some(Duration::ZERO), stages)?;
                    std::thread::yield_now();
                }
                Idle::Spin => {
                    self.look(&mut events, Some(Duration::ZERO), stages)?;
                    std::hint::spin_loop();
                }
            }
        }
        Ok(())
    }

    fn step(&self, stages: &mut [Box<dyn Stage>]) -> bool {
        let context = Context { now: Instant::now(), registry: Some(self.poll.registry()) };
        add(&self.pulse.turns, 1);
        let mut busy = false;
        let mut since = context.now;
        for stage in stages {
            if stage.step(&context) == Progress::Busy {
                busy = true;
                // One look at the clock per busy step. A stage that found nothing to do is too short to be told apart: what it
                // took goes to the next one that did.
                if let Some(board) = &self.board {
                    let now = Instant::now();
                    board.busy(stage.name(), now - since);
                    add(&self.pulse.busy_ns, (now - since).as_nanos() as u64);
                    since = now;
                }
            }
        }
        busy
    }

    fn look(
        &mut self,
        events: &mut Events,
        wait: Option<Duration>,
        stages: &mut [Box<dyn Stage>],
    ) -> Result<(), ReactorError> {
        self.board.iter().for_each(|board| board.count(Counter::PollCalls, 1));
        match self.poll.poll(events, wait) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(ReactorError::Poll(error)),
        }
        for event in events.iter().filter(|event| event.token() != BELL) {
            stages.iter_mut().for_each(|stage| stage.ready(event.token().0));
        }
        Ok(())
    }
}

/// How long a reactor may sleep.
fn until_timer(stages: &[Box<dyn Stage>]) -> Duration {
    let timer = stages.iter().filter_map(|stage| stage.timer()).min();
    let wait = timer.map_or(LOOK_UP, |timer| timer.saturating_duration_since(Instant::now()).min(LOOK_UP));
    // The kernel counts in milliseconds: rounded down, the last of them would be spent spinning.
    if wait.is_zero() { wait } else { wait + Duration::from_millis(1) }
}
