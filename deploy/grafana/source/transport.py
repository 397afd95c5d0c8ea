"""What comes and goes, on which way, what was refused, and where something waits."""

from panels import EMPTY, GREEN, RED, YELLOW, bars, dashboard, number, query, series, steps

TRAFFIC = [
    series(
        "Bytes",
        "Frames with their headers, per second, by direction and transport. Received: shards. Sent: updates, reports, credits.",
        "Bps",
        query("sum by (direction, transport) (rate(solon_bytes_total{$$}[$$]))", "{{direction}} by {{transport}}"),
    ),
    series(
        "Bytes per round",
        "What the daemon received and sent, over the rounds that were closed meanwhile.",
        "bytes",
        query(
            "sum by (direction) (rate(solon_bytes_total{$$}[$$])) / scalar(sum(rate(solon_rounds_total{$$}[$$])))",
            "{{direction}}",
        ),
    ),
    series(
        "Shards",
        "Per second: those whose checks passed, and of these those that came after their word was decided. Early decision makes many of the latter; they are still checked.",
        "ops",
        query("rate(solon_shards_accepted_total{$$}[$$])", "accepted"),
        query("rate(solon_shards_late_total{$$}[$$])", "of these late"),
    ),
    series(
        "Chunks decoded",
        "Chunks of updates per second.",
        "ops",
        query("rate(solon_chunks_decoded_total{$$}[$$])", "{{instance}}"),
    ),
    series(
        "System calls",
        "Of the data path, per second, by kind. wake: one thread of the daemon wakes another.",
        "ops",
        query("sum by (call) (rate(solon_system_calls_total{$$}[$$]))", "{{call}}"),
        stacked=True,
    ),
    series(
        "System calls per MiB",
        "Of the data path. Many: frames are small, or the daemon waits for each. Wider chunks need fewer.",
        "none",
        query(
            """sum by (instance) (rate(solon_system_calls_total{$$}[$$]))
            / (sum by (instance) (rate(solon_bytes_total{$$}[$$])) / 1048576)""",
            "{{instance}}",
        ),
    ),
]

SESSIONS = [
    series(
        "Sessions",
        "Sessions per second that began, by transport, and that ended, by how the daemon saw it. Many: workers come and go.",
        "ops",
        query("sum by (transport) (rate(solon_sessions_total{$$}[$$]))", "began by {{transport}}"),
        query("sum by (reason) (rate(solon_sessions_ended_total{$$}[$$]))", "ended: {{reason}}"),
        query("rate(solon_sessions_not_reading_total{$$}[$$])", "ended: not reading"),
    ),
    bars(
        "Frames not used",
        """In the time shown, by reason. corrupt, stale and duplicate ones are dropped and the session goes on; all others break the protocol and end it: is
        it the same version of Solon? Else treat it as a lie.""",
        "short",
        "sum by (reason) (increase(solon_frames_refused_total{$$}[$__range]))",
        "{{reason}}",
        colors=steps(GREEN, (0.5, YELLOW)),
    ),
    bars(
        "Connections turned away",
        "In the time shown, at the handshake, by reason. bad_proof: a wrong token, or somebody who tries.",
        "short",
        "sum by (reason) (increase(solon_connections_refused_total{$$}[$__range]))",
        "{{reason}}",
        colors=steps(GREEN, (0.5, YELLOW)),
    ),
]

WAITING = [
    series(
        "Slots in use",
        """Of what there is, by pool. shards: those that wait for a frame, and those that hold one, so it is full when the job is idle. updates or
        reports full for long: a worker does not read, or the network is the limit.""",
        "percentunit",
        query("sum by (pool) (solon_slots{$$}) / sum by (pool) (solon_slots_capacity{$$})", "{{pool}}"),
        max=1,
    ),
    series(
        "Credits",
        "Shards that the connected workers may send now, of those that all workers may send at most. Near 0 for long: the daemon is slower than its workers.",
        "percentunit",
        query("sum by (instance) (solon_credits{$$}) / sum by (instance) (solon_credits_capacity{$$})", "{{instance}}"),
        max=1,
    ),
    series(
        "Rings",
        "Messages that wait between two stages, of those there is room for. A ring that is never empty points at the stage that reads it.",
        "percentunit",
        query("sum by (ring) (solon_ring_messages{$$}) / sum by (ring) (solon_ring_capacity{$$})", "{{ring}}"),
        max=1,
    ),
]

UPDATES = [
    number(
        "Way of updates",
        "Whether workers pass updates on to each other now (relay), or get all from the daemon (direct).",
        "none",
        "solon_relay_active{$$}",
        "{{instance}}",
        mappings=[
            {
                "type": "value",
                "options": {"0": {"text": "direct", "index": 0}, "1": {"text": "relay", "index": 1}},
            }
        ],
    ),
    number("Carriers", "Connected workers that pass updates on.", "none", "solon_relay_workers{$$}", "{{instance}}"),
    number(
        "Changes of the way",
        "In the time shown: how often updates were given another way because it was measured to be faster.",
        "none",
        "increase(solon_relay_way_changes_total{$$}[$__range])",
        "{{instance}}",
        decimals=0,
    ),
    number(
        "Bad carriers",
        "In the time shown: how often a worker was found to pass updates on late or wrong. It is not asked to any more; the log names it.",
        "none",
        "increase(solon_bad_carriers_total{$$}[$__range])",
        "{{instance}}",
        decimals=0,
        colors=steps(GREEN, (0.5, YELLOW)),
    ),
    number(
        "Missing links",
        "In the time shown: how often a worker said that it does not reach another one. `solon doctor --peer` between the two says why.",
        "none",
        "increase(solon_links_missing_total{$$}[$__range])",
        "{{instance}}",
        decimals=0,
        colors=steps(GREEN, (0.5, YELLOW)),
    ),
    number(
        "Other updates",
        "In the time shown: updates that a worker has otherwise than they were pushed. Its model is another one: restore it.",
        "none",
        "increase(solon_digest_mismatches_total{$$}[$__range])",
        "{{instance}}",
        decimals=0,
        colors=steps(GREEN, (0.5, RED)),
    ),
    series(
        "Bytes of updates",
        "Per second, by who sent them. workers: passed on to each other, by the word of those who got them. announcements: who carries what.",
        "Bps",
        query("sum by (by) (rate(solon_update_bytes_total{$$}[$$]))", "by {{by}}"),
        query("sum (rate(solon_announce_bytes_total{$$}[$$]))", "announcements"),
        stacked=True,
    ),
    series(
        "Repairs",
        "Chunks per second that the daemon sent itself after all. late: the carrier was late or gone. wrong: it brought something else. unasked: nobody said whether it had come.",
        "ops",
        query("sum by (reason) (rate(solon_repairs_total{$$}[$$]))", "{{reason}}"),
    ),
    series(
        "Until most have the update",
        f"From a round's close until most workers say that they have its update: so many percent of rounds took at most so long. {EMPTY}updates cannot be relayed: workers say so only there.",
        "s",
        *[
            query(f"histogram_quantile({part}, sum by (le) (rate(solon_round_collected_seconds_bucket{{$$}}[$$]))) >= 0", f"{round(part * 100)} %")
            for part in (0.5, 0.9, 0.99)
        ],
    ),
]

RDMA = [
    series(
        "Completions",
        "Of the daemon's RDMA connections, per second, by status. flushed comes with every connection that ends. All 0 where workers come by TCP.",
        "ops",
        query("sum by (status) (rate(solon_rdma_completions_total{$$}[$$]))", "{{status}}"),
        width=12,
    ),
    series(
        "To TCP",
        "Sessions per second that went on by TCP after their RDMA connection ended, and that asked for RDMA and began by TCP. The log says why.",
        "ops",
        query("rate(solon_rdma_fallbacks_total{$$}[$$])", "fell back"),
        query("rate(solon_rdma_refused_total{$$}[$$])", "began by TCP"),
        width=8,
    ),
    number(
        "Regions",
        "Regions of memory registered with RDMA devices. 0 where there are none.",
        "none",
        "solon_rdma_regions{$$}",
        "{{instance}}",
        height=8,
    ),
]

DASHBOARD = dashboard(
    "solon-transport",
    "Solon: Transport",
    "What comes and goes, on which way, what was refused, and where something waits.",
    ("Traffic", TRAFFIC),
    ("Sessions and refusals", SESSIONS),
    ("Where something waits", WAITING),
    ("Updates and the relay", UPDATES),
    ("RDMA", RDMA),
)
