//! What drives the halves of a session, as the pipeline and a client do.

use super::*;

/// Where shards land at the daemon.
pub(super) struct Shards {
    pub(super) expected: u32,
    pub(super) posted: VecDeque<Slot>,
    /// Rounds from this one on are early.
    pub(super) open: u64,
}

impl Shards {
    fn may_come(&self, header: &Header) -> Result<bool, Violation> {
        if header.kind != Kind::Shard {
            return Err(Violation::Kind(header.kind));
        }
        if header.payload_bytes != self.expected {
            return Err(Violation::Length { found: header.payload_bytes, expected: self.expected });
        }
        Ok(header.round < self.open)
    }
}

impl Landing for Shards {
    fn place(&mut self, header: &Header) -> Result<Option<&mut [u8]>, Violation> {
        if !self.may_come(header)? {
            return Ok(None);
        }
        let slot = self.posted.front_mut().ok_or(Violation::Credit)?;
        Ok(Some(&mut slot[HEADER_BYTES..HEADER_BYTES + header.payload_bytes as usize]))
    }

    fn landed(&mut self, header: &mut Header) -> Result<bool, Violation> {
        self.may_come(header)
    }
}

/// What the receiver of a pipeline does with a worker's receiving half. Shard number `n` is of round `n`.
pub(super) struct DaemonIn {
    pub(super) inbound: Box<dyn Inbound>,
    pub(super) landing: Shards,
    pub(super) slab: Slab,
    pub(super) worker: usize,
    pub(super) credits: usize,
    pub(super) grant: Arc<AtomicU64>,
    pub(super) got: Vec<u64>,
    pub(super) heard: Vec<Header>,
    pub(super) fell_back: Vec<LinkFailure>,
    /// Slots that the pipeline still reads, and what must stand in them.
    pub(super) held: VecDeque<(Slot, Header)>,
    pub(super) wrong: Option<String>,
    pub(super) end: Option<Disconnect>,
}

pub(super) const READ_LATER: usize = 2;

impl DaemonIn {
    pub(super) fn post(&mut self) {
        while let Some(slot) = self.inbound.give_back() {
            self.landing.posted.push_back(slot);
        }
        while self.landing.posted.len() + self.inbound.posted() < self.credits {
            let Some(slot) = self.slab.take(self.worker) else { break };
            if let Err(slot) = self.inbound.post(slot) {
                self.landing.posted.push_back(slot);
            }
        }
        let granted = self.got.len() + self.landing.posted.len() + self.inbound.posted();
        self.grant.store(granted as u64, Ordering::SeqCst);
    }

    pub(super) fn read(&mut self, leave: usize) {
        while self.held.len() > leave {
            let Some((slot, header)) = self.held.pop_front() else { return };
            let payload = &slot[HEADER_BYTES..HEADER_BYTES + header.payload_bytes as usize];
            if !header.verifies(payload) || payload.iter().any(|byte| *byte != header.round as u8) {
                self.wrong = Some(format!("shard {} is damaged", header.round));
            }
        }
    }

    pub(super) fn turn(&mut self) {
        if self.end.is_some() {
            return;
        }
        self.post();
        for _ in 0..8 {
            match self.inbound.receive(&mut self.landing, Instant::now()) {
                Ok(Some(header)) if header.payload_bytes == 0 => self.heard.push(header),
                Ok(Some(header)) => {
                    let slot = self.inbound.filled().or_else(|| self.landing.posted.pop_front());
                    self.held.push_back((slot.expect("it landed in a slot"), header));
                    self.got.push(header.round);
                    self.read(READ_LATER);
                }
                Ok(None) => {
                    self.fell_back.extend(self.inbound.fell_back());
                    return;
                }
                Err(end) => {
                    self.inbound.close();
                    self.end = Some(end);
                    return;
                }
            }
        }
    }
}

pub(super) fn pattern(round: u64, chunk: u32) -> u8 {
    (round * 31 + u64::from(chunk) * 7 + 1) as u8
}

/// What the pusher of a pipeline does with a worker's sending half.
pub(super) struct DaemonOut {
    pub(super) outbound: Box<dyn Outbound>,
    pub(super) slab: Slab,
    pub(super) plan: Plan,
    pub(super) grant: Arc<AtomicU64>,
    pub(super) granted: u64,
    pub(super) end: Option<Disconnect>,
}

impl DaemonOut {
    pub(super) fn control(&mut self, header: Header) {
        self.outbound.send(Outgoing::Control(header_bytes(header, &[]))).unwrap();
    }

    /// Queues a chunk of an update, or with `None` a report; `false` if there is no room now.
    pub(super) fn send(&mut self, round: u64, chunk: Option<u32>) -> bool {
        let Some(mut slot) = self.slab.take(0) else { return false };
        let (kind, bytes) = match chunk {
            Some(chunk) => (Kind::Update, self.plan.update_bytes(self.plan.layout.chunk(chunk as usize).len)),
            None => (Kind::RoundEnd, REPORT_BYTES),
        };
        let chunk = chunk.unwrap_or(0);
        let len = HEADER_BYTES + bytes;
        slot[HEADER_BYTES..len].fill(pattern(round, chunk));
        seal(Header { job: 5, session: 9, round, chunk, ..Header::new(kind) }, &mut slot[..len]);
        self.outbound.send(Outgoing::Shared(slot.freeze(), len)).is_ok()
    }

    pub(super) fn tell(&mut self) {
        let grant = self.grant.load(Ordering::SeqCst);
        if grant > self.granted {
            self.granted = grant;
            self.control(Header { argument: grant, job: 5, session: 9, ..Header::new(Kind::Credit) });
        }
    }

    pub(super) fn turn(&mut self) {
        if self.end.is_some() {
            return;
        }
        self.tell();
        if let Err(end) = self.outbound.flush(Instant::now()) {
            self.outbound.close();
            self.end = Some(end);
        }
    }
}

/// Where updates land at a worker.
pub(super) struct Updates {
    pub(super) plan: Plan,
    pub(super) held: Vec<Slot>,
    pub(super) oldest: Option<u64>,
    pub(super) full: bool,
    pub(super) buffer: Vec<u8>,
    /// How often each came: `None` is the report.
    pub(super) got: BTreeMap<(u64, Option<u32>), usize>,
    pub(super) wrong: Option<String>,
}

impl Updates {
    pub(super) fn window(&self) -> Result<std::ops::Range<u64>, Violation> {
        let first = self.oldest.unwrap_or(0);
        Ok(first..first + self.held.len() as u64)
    }

    pub(super) fn check(&mut self, round: u64, chunk: Option<u32>, ok: bool) {
        if !ok {
            self.wrong = Some(format!("chunk {chunk:?} of round {round} is damaged"));
        }
        *self.got.entry((round, chunk)).or_insert(0) += 1;
        while let Some(oldest) = self.oldest.filter(|oldest| self.whole(*oldest)) {
            self.oldest = Some(oldest + 1);
        }
    }

    pub(super) fn whole(&self, round: u64) -> bool {
        let chunks = (0..self.plan.layout.chunks() as u32).map(Some).chain([None]);
        chunks.into_iter().all(|chunk| self.got.contains_key(&(round, chunk)))
    }
}

pub(super) fn is(bytes: &[u8], round: u64, chunk: u32) -> bool {
    bytes.iter().all(|byte| *byte == pattern(round, chunk))
}

impl Landing for Updates {
    fn place(&mut self, header: &Header) -> Result<Option<&mut [u8]>, Violation> {
        if self.full {
            return Ok(None);
        }
        self.buffer.resize(header.payload_bytes as usize, 0);
        Ok(Some(&mut self.buffer))
    }

    fn landed(&mut self, header: &mut Header) -> Result<bool, Violation> {
        if self.oldest.is_none() || self.full {
            return Ok(false);
        }
        let window = self.window()?;
        if !window.contains(&header.round) {
            return Err(Violation::Round { found: header.round, first: window.start, end: window.end });
        }
        let (round, place) = (header.round, &self.held[(header.round % self.held.len() as u64) as usize]);
        if header.kind == Kind::RoundEnd {
            let header = Header::parse(place.part(0..HEADER_BYTES).try_into().unwrap())?;
            let report = place.part(HEADER_BYTES..HEADER_BYTES + REPORT_BYTES);
            let ok = header.round == round && header.verifies(report) && is(report, round, 0);
            self.check(round, None, ok);
            return Ok(true);
        }
        let chunk = self.plan.layout.chunk(header.chunk as usize);
        let (start, bytes) = (UPDATE_OFFSET + 4 * chunk.start, self.plan.update_bytes(chunk.len));
        let ok = header.payload_bytes as usize == bytes && is(place.part(start..start + bytes), round, header.chunk);
        self.check(round, Some(header.chunk), ok);
        header.checksum = 0;
        Ok(true)
    }
}

/// What a client's session does.
pub(super) struct WorkerSide {
    pub(super) inbound: Box<dyn Inbound>,
    pub(super) outbound: Box<dyn Outbound>,
    pub(super) slots: Slab,
    pub(super) shard: usize,
    pub(super) landing: Updates,
    pub(super) granted: u64,
    pub(super) sent: u64,
    /// Does it tell the daemon what it has collected?
    pub(super) releases: bool,
    pub(super) heard: Vec<Kind>,
    pub(super) fell_back: Vec<LinkFailure>,
    pub(super) end: Option<Disconnect>,
}

impl WorkerSide {
    pub(super) fn frame(&self, round: u64, payload: usize) -> Option<Outgoing> {
        let mut slot = self.slots.take(0)?;
        let len = HEADER_BYTES + payload;
        slot[HEADER_BYTES..len].fill(round as u8);
        seal(Header { round, ..Header::new(Kind::Shard) }, &mut slot[..len]);
        Some(Outgoing::Owned(slot, len))
    }

    /// Sends as many shards as it may, up to number `until`.
    pub(super) fn pump(&mut self, until: u64) {
        while self.sent < until.min(self.granted) {
            let Some(frame) = self.frame(self.sent, self.shard) else { return };
            if self.outbound.send(frame).is_err() {
                return;
            }
            self.sent += 1;
        }
    }

    pub(super) fn control(&mut self, header: Header) {
        self.outbound.send(Outgoing::Control(header_bytes(header, &[]))).unwrap();
    }

    pub(super) fn turn(&mut self) {
        if self.end.is_some() {
            return;
        }
        let _ = self.outbound.flush(Instant::now());
        let before = self.landing.oldest;
        loop {
            match self.inbound.receive(&mut self.landing, Instant::now()) {
                Ok(Some(header)) => self.take_in(header),
                Ok(None) => break,
                Err(end) => {
                    self.inbound.close();
                    self.end = Some(end);
                    return;
                }
            }
        }
        self.fell_back.extend(self.inbound.fell_back());
        if let (Some(oldest), true) = (self.landing.oldest, self.releases && before != self.landing.oldest) {
            self.outbound.release(oldest);
        }
        let _ = self.outbound.flush(Instant::now());
    }

    fn take_in(&mut self, header: Header) {
        match header.kind {
            Kind::Ready => self.landing.oldest = Some(header.round),
            Kind::Credit => self.granted = self.granted.max(header.argument),
            // It came by TCP, or was looked at when it landed.
            Kind::Update | Kind::RoundEnd if !self.landing.buffer.is_empty() => {
                let chunk = (header.kind == Kind::Update).then_some(header.chunk);
                let bytes = std::mem::take(&mut self.landing.buffer);
                let ok = header.verifies(&bytes) && is(&bytes, header.round, header.chunk);
                self.landing.check(header.round, chunk, ok);
            }
            _ => {}
        }
        self.heard.push(header.kind);
    }
}
