//! What happens to work that was posted: delivered, kept, failed, flushed.

use super::pair::{Receive, Send};
use super::*;

enum Obstacle {
    /// Not now.
    Wait,
    /// Never: the send completes with this status, and its queue pair breaks.
    Status(c_int),
}

use Obstacle::{Status, Wait};

/// A failed completion has an identity, a status and a queue pair; the manual promises no more.
fn failed(id: u64, status: c_int, pair: u32) -> ibv_wc {
    let (opcode, byte_len) = (c_int::MAX, u32::MAX);
    ibv_wc { wr_id: id, status, opcode, byte_len, vendor_err: 0xfa, qp_num: pair, ..ibv_wc::default() }
}

impl State {
    pub(super) fn progress_all(&mut self) {
        for number in self.pair_numbers() {
            self.progress(number);
        }
    }

    /// Carries out the sends of a queue pair in order, as far as they can be.
    pub(super) fn progress(&mut self, number: u32) {
        while let Some(pair) = self.pairs.get(&number) {
            if pair.state == ffi::IBV_QPS_ERR {
                return self.flush(number);
            }
            let (ffi::IBV_QPS_RTS, Some(work)) = (pair.state, pair.sends.front().cloned()) else { return };
            match self.transmit(number, &work) {
                Ok(bytes) => self.sent(number, bytes),
                Err(Wait) => return,
                Err(Status(status)) => {
                    self.fail_send(number, status);
                    self.break_pair(number);
                }
            }
        }
    }

    /// A peer may have waited for these.
    pub(super) fn receives_posted(&mut self, number: u32) {
        self.progress(number);
        let peer = self.pairs[&number].set.dest_qp_num;
        self.progress(peer);
    }

    /// Moves a queue pair to the state ERR, and flushes it.
    pub(super) fn break_pair(&mut self, number: u32) {
        let Some(pair) = self.pairs.get_mut(&number) else { return };
        pair.state = ffi::IBV_QPS_ERR;
        self.flush(number);
    }

    fn flush(&mut self, number: u32) {
        while self.pairs.get(&number).is_some_and(|pair| !pair.sends.is_empty()) {
            self.fail_send(number, ffi::IBV_WC_WR_FLUSH_ERR);
        }
        while let Some(receive) = self.pairs.get_mut(&number).and_then(|pair| pair.receives.pop_front()) {
            self.received(number, failed(receive.id, ffi::IBV_WC_WR_FLUSH_ERR, number));
        }
    }

    fn received(&mut self, number: u32, completion: ibv_wc) {
        let queue = self.pairs[&number].receive_queue;
        self.push(queue, queue::Entry { completion, pair: number, sends: 0, receives: 1 });
    }

    /// The first send has failed.
    fn fail_send(&mut self, number: u32, status: c_int) {
        let Some(pair) = self.pairs.get_mut(&number) else { return };
        let Some(work) = pair.sends.pop_front() else { return };
        let sends = std::mem::take(&mut pair.unsignalled) + 1;
        let (queue, completion) = (pair.send_queue, failed(work.id, status, number));
        self.push(queue, queue::Entry { completion, pair: number, sends, receives: 0 });
    }

    /// The first send was acknowledged.
    fn sent(&mut self, number: u32, bytes: usize) {
        let Some(pair) = self.pairs.get_mut(&number) else { return };
        let Some(work) = pair.sends.pop_front() else { return };
        pair.unsignalled += 1;
        if !work.signalled {
            return;
        }
        let opcode = match work.opcode {
            ffi::IBV_WR_RDMA_WRITE | ffi::IBV_WR_RDMA_WRITE_WITH_IMM => ffi::IBV_WC_RDMA_WRITE,
            ffi::IBV_WR_RDMA_READ => ffi::IBV_WC_RDMA_READ,
            _ => ffi::IBV_WC_SEND,
        };
        let sends = std::mem::take(&mut pair.unsignalled);
        let queue = pair.send_queue;
        let completion = ibv_wc { wr_id: work.id, opcode, byte_len: bytes as u32, qp_num: number, ..ibv_wc::default() };
        self.push(queue, queue::Entry { completion, pair: number, sends, receives: 0 });
    }

    fn port(&self, number: u32) -> Option<&Port> {
        let pair = self.pairs.get(&number)?;
        self.devices[pair.device].ports.get(usize::from(pair.set.port_num).checked_sub(1)?)
    }

    /// The queue pair at the other end, if both mean each other, agree on sequence numbers, and the address leads there.
    fn peer(&self, number: u32) -> Option<u32> {
        let set = &self.pairs[&number].set;
        let (peer, port) = (self.pairs.get(&set.dest_qp_num)?, self.port(set.dest_qp_num)?);
        let ready = [ffi::IBV_QPS_RTR, ffi::IBV_QPS_RTS].contains(&peer.state);
        let mutual = peer.set.dest_qp_num == number && peer.set.rq_psn == set.sq_psn;
        let way = &set.ah_attr;
        let leads = if way.is_global != 0 { port.gids.contains(&way.grh.dgid) } else { port.lid == way.dlid };
        (ready && mutual && leads && peer.set.path_mtu == set.path_mtu).then_some(set.dest_qp_num)
    }

    /// Carries out one send; says how many bytes went over.
    fn transmit(&mut self, number: u32, work: &Send) -> Result<usize, Obstacle> {
        let pair = &self.pairs[&number];
        let domain = pair.domain;
        let reads = work.opcode == ffi::IBV_WR_RDMA_READ;
        let flag = if reads { ffi::IBV_ACCESS_LOCAL_WRITE } else { 0 };
        if work.inline.is_none() && !self.local(domain, &work.pieces, flag) {
            return Err(Status(ffi::IBV_WC_LOC_PROT_ERR));
        }
        let down = |port: Option<&Port>| port.is_some_and(|port| port.state != ffi::IBV_PORT_ACTIVE);
        if down(self.port(number)) || down(self.port(pair.set.dest_qp_num)) {
            return Err(Status(ffi::IBV_WC_RETRY_EXC_ERR));
        }
        if self.held {
            return Err(Wait);
        }
        let rnr_retry = pair.set.rnr_retry;
        let peer_number = self.peer(number).ok_or(Status(ffi::IBV_WC_RETRY_EXC_ERR))?;
        self.establish(peer_number);
        let peer = &self.pairs[&peer_number];
        let writes = [ffi::IBV_WR_RDMA_WRITE, ffi::IBV_WR_RDMA_WRITE_WITH_IMM].contains(&work.opcode);
        let bytes: usize = work.pieces.iter().map(|piece| piece.length as usize).sum();
        if reads || writes {
            let flag = if reads { ffi::IBV_ACCESS_REMOTE_READ } else { ffi::IBV_ACCESS_REMOTE_WRITE };
            let may = self.remote(peer.domain, work.remote_addr, bytes, work.rkey, flag);
            if reads && peer.set.max_dest_rd_atomic == 0 {
                self.break_pair(peer_number);
                return Err(Status(ffi::IBV_WC_REM_INV_REQ_ERR));
            }
            if !may || !has(peer.set.qp_access_flags, flag) {
                self.break_pair(peer_number);
                return Err(Status(ffi::IBV_WC_REM_ACCESS_ERR));
            }
        }
        if reads {
            memory::scatter(&work.pieces, &memory::read(work.remote_addr, bytes));
            return Ok(bytes);
        }
        let takes_receive = work.opcode != ffi::IBV_WR_RDMA_WRITE;
        if takes_receive && peer.receives.is_empty() {
            // 7 means for ever.
            return Err(if rnr_retry == 7 { Wait } else { Status(ffi::IBV_WC_RNR_RETRY_EXC_ERR) });
        }
        let data = work.inline.clone().unwrap_or_else(|| memory::gather(&work.pieces));
        if writes {
            memory::write(work.remote_addr, &data);
        }
        if takes_receive {
            let receive = self.pairs.get_mut(&peer_number).and_then(|peer| peer.receives.pop_front());
            self.deliver(peer_number, receive.expect("there is one"), work, &data)?;
        }
        Ok(bytes)
    }

    /// Something arrives at a queue pair for the first time.
    fn establish(&mut self, number: u32) {
        let Some(pair) = self.pairs.get_mut(&number) else { return };
        if !std::mem::replace(&mut pair.established, true) && pair.state == ffi::IBV_QPS_RTR {
            let (device, raw) = (pair.device, pair.raw);
            self.raise(device, ffi::IBV_EVENT_COMM_EST, raw.cast());
        }
    }

    /// Uses up a posted receive.
    fn deliver(&mut self, number: u32, receive: Receive, work: &Send, data: &[u8]) -> Result<(), Obstacle> {
        let (mut opcode, mut flags) = (ffi::IBV_WC_RECV, 0);
        match work.opcode {
            ffi::IBV_WR_RDMA_WRITE_WITH_IMM => (opcode, flags) = (ffi::IBV_WC_RECV_RDMA_WITH_IMM, ffi::IBV_WC_WITH_IMM),
            ffi::IBV_WR_SEND_WITH_IMM => flags = ffi::IBV_WC_WITH_IMM,
            ffi::IBV_WR_SEND_WITH_INV => flags = ffi::IBV_WC_WITH_INV,
            _ => {}
        }
        if opcode == ffi::IBV_WC_RECV {
            let room: usize = receive.pieces.iter().map(|piece| piece.length as usize).sum();
            let problem = if data.len() > room {
                Some((ffi::IBV_WC_LOC_LEN_ERR, ffi::IBV_WC_REM_INV_REQ_ERR))
            } else if !self.local(self.pairs[&number].domain, &receive.pieces, ffi::IBV_ACCESS_LOCAL_WRITE) {
                Some((ffi::IBV_WC_LOC_PROT_ERR, ffi::IBV_WC_REM_OP_ERR))
            } else {
                None
            };
            if let Some((here, there)) = problem {
                self.received(number, failed(receive.id, here, number));
                self.break_pair(number);
                return Err(Status(there));
            }
            memory::scatter(&receive.pieces, data);
        }
        let completion = ibv_wc {
            wr_id: receive.id,
            opcode,
            byte_len: data.len() as u32,
            imm_data: if flags == 0 { 0 } else { work.imm_data },
            qp_num: number,
            wc_flags: flags,
            ..ibv_wc::default()
        };
        self.received(number, completion);
        Ok(())
    }
}
