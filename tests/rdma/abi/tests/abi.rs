//! Solon's hand-written verbs ABI is that of the system's headers.
//!
//! Two witnesses. `rdma-sys` runs bindgen over the headers, but writes the structures with unions by hand, leaves out what has no
//! name (the link layers), and gives up on these headers with clang 16 and later; so the C compiler is asked too, about
//! everything, with static assertions.

#![allow(missing_docs)]

use std::io::Write;
use std::process::{Command, Stdio};

use solon::transport::rdma::ffi;

/// What a C expression of the headers must be, and what `rdma-sys` makes of it (`None`: it does not know it).
struct Fact {
    c: String,
    ours: usize,
    bindgen: Option<usize>,
}

fn field_bytes<S, F>(_: fn(&S) -> &F) -> usize {
    size_of::<F>()
}

macro_rules! layout {
    // A structure of which ffi.rs has all.
    (whole $c:literal $name:ident { $($field:ident $(= $theirs:ident)?),* }) => {{
        let mut facts = layout!(start $c $name { $($field $(= $theirs)?),* });
        facts.push(Fact {
            c: format!("sizeof({})", $c),
            ours: size_of::<ffi::$name>(),
            bindgen: Some(size_of::<rdma_sys::$name>()),
        });
        facts
    }};
    // A structure of which ffi.rs has the start.
    (start $c:literal $name:ident { $($field:ident $(= $theirs:ident)?),* }) => {{
        let mut facts = vec![Fact {
            c: format!("_Alignof({})", $c),
            ours: align_of::<ffi::$name>(),
            bindgen: Some(align_of::<rdma_sys::$name>()),
        }];
        $(
            facts.push(Fact {
                c: format!("offsetof({}, {})", $c, layout!(c $field $($theirs)?)),
                ours: std::mem::offset_of!(ffi::$name, $field),
                bindgen: Some(layout!(offset $name $field $($theirs)?)),
            });
            facts.push(Fact {
                c: format!("sizeof((({} *)0)->{})", $c, layout!(c $field $($theirs)?)),
                ours: field_bytes(|all: &ffi::$name| &all.$field),
                bindgen: None,
            });
        )*
        facts
    }};
    // `rdma-sys` gives the anonymous union a name, C does not.
    (c imm_data $theirs:ident) => { "imm_data" };
    (c $field:ident $theirs:ident) => { stringify!($theirs) };
    (c $field:ident) => { stringify!($field) };
    (offset $name:ident $field:ident $theirs:ident) => { std::mem::offset_of!(rdma_sys::$name, $theirs) };
    (offset $name:ident $field:ident) => { std::mem::offset_of!(rdma_sys::$name, $field) };
}

fn layouts() -> Vec<Fact> {
    [
        layout!(whole "struct ibv_device" ibv_device {
            ops = _ops, node_type, transport_type, name, dev_name, dev_path, ibdev_path
        }),
        layout!(whole "struct ibv_context_ops" ibv_context_ops { poll_cq, req_notify_cq, post_send, post_recv }),
        layout!(start "struct ibv_context" ibv_context { device, ops, cmd_fd, async_fd, num_comp_vectors }),
        layout!(whole "struct ibv_pd" ibv_pd { context, handle }),
        layout!(whole "struct ibv_mr" ibv_mr { context, pd, addr, length, handle, lkey, rkey }),
        layout!(whole "struct ibv_comp_channel" ibv_comp_channel { context, fd, refcnt }),
        layout!(start "struct ibv_cq" ibv_cq { context, channel, cq_context, handle, cqe }),
        layout!(start "struct ibv_qp" ibv_qp {
            context, qp_context, pd, send_cq, recv_cq, srq, handle, qp_num, state, qp_type
        }),
        layout!(whole "struct ibv_device_attr" ibv_device_attr {
            fw_ver, node_guid, sys_image_guid, max_mr_size, page_size_cap, vendor_id, vendor_part_id, hw_ver, max_qp, max_qp_wr,
            device_cap_flags, max_sge, max_sge_rd, max_cq, max_cqe, max_mr, max_pd, max_pkeys, local_ca_ack_delay, phys_port_cnt
        }),
        layout!(whole "struct ibv_port_attr" ibv_port_attr {
            state, max_mtu, active_mtu, gid_tbl_len, port_cap_flags, max_msg_sz, bad_pkey_cntr, qkey_viol_cntr, pkey_tbl_len, lid,
            sm_lid, lmc, max_vl_num, sm_sl, subnet_timeout, init_type_reply, active_width, active_speed, phys_state, link_layer,
            flags, port_cap_flags2
        }),
        layout!(whole "union ibv_gid" ibv_gid { raw }),
        layout!(whole "struct ibv_global_route" ibv_global_route { dgid, flow_label, sgid_index, hop_limit, traffic_class }),
        layout!(whole "struct ibv_ah_attr" ibv_ah_attr {
            grh, dlid, sl, src_path_bits, static_rate, is_global, port_num
        }),
        layout!(whole "struct ibv_qp_cap" ibv_qp_cap {
            max_send_wr, max_recv_wr, max_send_sge, max_recv_sge, max_inline_data
        }),
        layout!(whole "struct ibv_qp_init_attr" ibv_qp_init_attr {
            qp_context, send_cq, recv_cq, srq, cap, qp_type, sq_sig_all
        }),
        layout!(whole "struct ibv_qp_attr" ibv_qp_attr {
            qp_state, cur_qp_state, path_mtu, path_mig_state, qkey, rq_psn, sq_psn, dest_qp_num, qp_access_flags, cap, ah_attr,
            alt_ah_attr, pkey_index, alt_pkey_index, en_sqd_async_notify, sq_draining, max_rd_atomic, max_dest_rd_atomic,
            min_rnr_timer, port_num, timeout, retry_cnt, rnr_retry, alt_port_num, alt_timeout, rate_limit
        }),
        layout!(whole "struct ibv_sge" ibv_sge { addr, length, lkey }),
        layout!(whole "struct ibv_send_wr" ibv_send_wr {
            wr_id, next, sg_list, num_sge, opcode, send_flags, imm_data = imm_data_invalidated_rkey_union, rdma = wr
        }),
        layout!(whole "struct ibv_recv_wr" ibv_recv_wr { wr_id, next, sg_list, num_sge }),
        layout!(whole "struct ibv_wc" ibv_wc {
            wr_id, status, opcode, vendor_err, byte_len, imm_data = imm_data_invalidated_rkey_union, qp_num, src_qp, wc_flags,
            pkey_index, slid, sl, dlid_path_bits
        }),
        layout!(whole "struct ibv_async_event" ibv_async_event { element, event_type }),
        // What an RDMA operation addresses has no name in C.
        vec![
            Fact {
                c: "offsetof(struct ibv_send_wr, wr.rdma.remote_addr)".into(),
                ours: std::mem::offset_of!(ffi::ibv_send_wr, rdma.remote_addr),
                bindgen: Some(std::mem::offset_of!(rdma_sys::ibv_send_wr, wr.rdma.remote_addr)),
            },
            Fact {
                c: "offsetof(struct ibv_send_wr, wr.rdma.rkey)".into(),
                ours: std::mem::offset_of!(ffi::ibv_send_wr, rdma.rkey),
                bindgen: Some(std::mem::offset_of!(rdma_sys::ibv_send_wr, wr.rdma.rkey)),
            },
        ],
    ]
    .into_iter()
    .flatten()
    .collect()
}

macro_rules! constants {
    ($($kind:ident $enumeration:ident { $($name:ident),* $(,)? })*) => {
        vec![$($(Fact {
            c: stringify!($name).into(),
            ours: ffi::$name as usize,
            bindgen: constants!($kind $enumeration $name),
        },)*)*]
    };
    (module $enumeration:ident $name:ident) => { Some(rdma_sys::$enumeration::$name as usize) };
    (flags $enumeration:ident $name:ident) => { Some(rdma_sys::$enumeration::$name.0 as usize) };
    (unnamed $enumeration:ident $name:ident) => { None };
}

fn constants() -> Vec<Fact> {
    constants! {
        module ibv_port_state { IBV_PORT_DOWN, IBV_PORT_ACTIVE }
        unnamed link_layer { IBV_LINK_LAYER_INFINIBAND, IBV_LINK_LAYER_ETHERNET }
        module ibv_qp_type { IBV_QPT_RC }
        module ibv_qp_state { IBV_QPS_RESET, IBV_QPS_INIT, IBV_QPS_RTR, IBV_QPS_RTS, IBV_QPS_ERR }
        flags ibv_qp_attr_mask {
            IBV_QP_STATE, IBV_QP_ACCESS_FLAGS, IBV_QP_PKEY_INDEX, IBV_QP_PORT, IBV_QP_AV, IBV_QP_PATH_MTU, IBV_QP_TIMEOUT,
            IBV_QP_RETRY_CNT, IBV_QP_RNR_RETRY, IBV_QP_RQ_PSN, IBV_QP_MAX_QP_RD_ATOMIC, IBV_QP_MIN_RNR_TIMER, IBV_QP_SQ_PSN,
            IBV_QP_MAX_DEST_RD_ATOMIC, IBV_QP_DEST_QPN,
        }
        flags ibv_access_flags { IBV_ACCESS_LOCAL_WRITE, IBV_ACCESS_REMOTE_WRITE, IBV_ACCESS_REMOTE_READ }
        module ibv_wr_opcode {
            IBV_WR_RDMA_WRITE, IBV_WR_RDMA_WRITE_WITH_IMM, IBV_WR_SEND, IBV_WR_SEND_WITH_IMM, IBV_WR_RDMA_READ,
            IBV_WR_SEND_WITH_INV,
        }
        flags ibv_send_flags { IBV_SEND_SIGNALED, IBV_SEND_INLINE }
        module ibv_wc_status {
            IBV_WC_SUCCESS, IBV_WC_LOC_LEN_ERR, IBV_WC_LOC_PROT_ERR, IBV_WC_WR_FLUSH_ERR, IBV_WC_REM_INV_REQ_ERR,
            IBV_WC_REM_ACCESS_ERR, IBV_WC_REM_OP_ERR, IBV_WC_RETRY_EXC_ERR, IBV_WC_RNR_RETRY_EXC_ERR,
        }
        module ibv_wc_opcode { IBV_WC_SEND, IBV_WC_RDMA_WRITE, IBV_WC_RDMA_READ, IBV_WC_RECV, IBV_WC_RECV_RDMA_WITH_IMM }
        flags ibv_wc_flags { IBV_WC_WITH_IMM, IBV_WC_WITH_INV }
        module ibv_event_type {
            IBV_EVENT_CQ_ERR, IBV_EVENT_QP_FATAL, IBV_EVENT_QP_REQ_ERR, IBV_EVENT_QP_ACCESS_ERR, IBV_EVENT_COMM_EST,
            IBV_EVENT_DEVICE_FATAL, IBV_EVENT_PORT_ACTIVE, IBV_EVENT_PORT_ERR, IBV_EVENT_LID_CHANGE, IBV_EVENT_GID_CHANGE,
        }
    }
}

fn differences(facts: &[Fact]) -> Vec<String> {
    let told = facts.iter().filter(|fact| fact.bindgen.is_some_and(|theirs| theirs != fact.ours));
    told.map(|fact| format!("{}: {} here, {:?} in rdma-sys", fact.c, fact.ours, fact.bindgen)).collect()
}

#[test]
fn layouts_and_constants_are_those_of_rdma_sys() {
    assert_eq!(differences(&layouts()), Vec::<String>::new());
    assert_eq!(differences(&constants()), Vec::<String>::new());
}

#[test]
fn layouts_and_constants_are_those_of_the_headers() {
    let mut program = String::from("#include <stddef.h>\n#include <infiniband/verbs.h>\n");
    for fact in layouts().iter().chain(&constants()) {
        let expectation = format!("{} == {}", fact.c, fact.ours);
        program += &format!("_Static_assert({expectation}, \"{expectation}\");\n");
    }
    let mut compiler = Command::new("cc")
        .args(["-std=c11", "-D_GNU_SOURCE", "-fsyntax-only", "-x", "c", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("a C compiler");
    compiler.stdin.take().unwrap().write_all(program.as_bytes()).unwrap();
    assert!(compiler.wait().unwrap().success(), "the compiler says above what differs");
}

#[test]
fn nothing_in_ffi_is_left_out() {
    let source = include_str!("../../../../src/transport/rdma/ffi.rs");
    let known: Vec<String> = layouts().iter().chain(&constants()).map(|fact| fact.c.clone()).collect();
    for line in source.lines() {
        if let Some(rest) = line.strip_prefix("pub const ") {
            let name = rest.split(':').next().unwrap();
            assert!(known.iter().any(|c| c == name), "{name} is not compared");
        }
        if let Some(rest) = line.strip_prefix("pub struct ibv_") {
            let alignment = format!("ibv_{})", rest.trim_end_matches(" {"));
            assert!(
                known.iter().any(|c| c.starts_with("_Alignof") && c.ends_with(&alignment)),
                "{rest} is not compared"
            );
        }
    }
}
