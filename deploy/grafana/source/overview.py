"""Is the job well, and if not, where to look."""

from panels import EMPTY, MORE_LIARS, GREEN, RED, YELLOW, bars, dashboard, number, query, series, steps


def quantiles(histogram, *parts):
    return [
        query(f"histogram_quantile({part}, sum by (le) (rate({histogram}_bucket{{$$}}[$$])))", f"{round(part * 100)} %") for part in parts
    ]


NOW = [
    number(
        "Daemon",
        "Whether Prometheus reaches solond, and whether workers can join and rounds can begin there.",
        "none",
        "up{$$} + (solon_ready{$$} or up{$$} * 0)",
        "{{instance}}",
        colors=steps(RED, (1, YELLOW), (2, GREEN)),
        mappings=[
            {
                "type": "value",
                "options": {
                    "0": {"text": "down", "color": RED, "index": 0},
                    "1": {"text": "not ready", "color": YELLOW, "index": 1},
                    "2": {"text": "ready", "color": GREEN, "index": 2},
                },
            }
        ],
    ),
    number(
        "Open round",
        "The number of the round that is open. All before it are closed.",
        "none",
        "solon_open_round{$$}",
        "{{instance}}",
    ),
    number(
        "Workers missing",
        "Workers of the job without a session.",
        "none",
        "solon_job_workers{$$} - on (job, instance) sum by (job, instance) (solon_worker_connected{$$})",
        "{{instance}}",
        colors=steps(GREEN, (1, YELLOW)),
    ),
    number(
        "More liars corrected",
        """How many more liars the weakest group could correct: as many as are connected beyond those that must agree, at most job.adversaries, less those
        that were named in the last five minutes. At 0 the next liar makes rounds undecodable.""",
        "none",
        f"min by (instance) ({MORE_LIARS})",
        "{{instance}}",
        colors=steps(RED, (1, GREEN)),
    ),
    number(
        "Liars, last hour",
        "Workers that the report of some round of the last hour names as liars. Which: dashboard Integrity.",
        "none",
        "sum by (instance) (increase(solon_worker_named_rounds_total{$$}[1h]) > bool 0)",
        "{{instance}}",
        colors=steps(GREEN, (1, RED)),
    ),
    number(
        "Undecodable, last hour",
        "Rounds of the last hour that gave no update: too few workers in time, more liars than are corrected, or numbers that are not finite.",
        "none",
        'sum by (instance) (increase(solon_rounds_total{$$,outcome!="complete"}[1h]))',
        "{{instance}}",
        decimals=0,
        colors=steps(GREEN, (0.5, RED)),
    ),
    number(
        "Up for",
        "How long the daemon runs. Counters count from its start.",
        "s",
        "time() - process_start_time_seconds{$$}",
        "{{instance}}",
        width=6,
    ),
    number("Version", "The version of the daemon.", "none", "solon_build_info{$$}", "{{version}} {{arch}}", width=6, text="name"),
    bars(
        "Alerts",
        f"Alerts of deploy/prometheus/solon.rules.yml that fire now. {EMPTY}no alert fires.",
        "none",
        'count by (alertname, severity) (ALERTS{alertstate="firing",alertname=~"Solon.*"})',
        "{{alertname}} ({{severity}})",
        width=12,
        height=4,
        colors=steps(RED),
        noValue="none",
    ),
]

ROUNDS = [
    series(
        "Rounds",
        "Rounds closed per second, by how they ended. All but complete are undecodable: nobody gets an update.",
        "ops",
        query("sum by (outcome) (rate(solon_rounds_total{$$}[$$]))", "{{outcome}}"),
        stacked=True,
    ),
    series(
        "Time of a round",
        "From the first shard of a round to its close: so many percent of rounds took at most so long.",
        "s",
        *quantiles("solon_round_seconds", 0.5, 0.9, 0.99),
    ),
    series(
        "Time of each phase",
        """Means per round. receive: from the first shard to the last; long: workers or the network. locate and decode: work of all decoders together. push:
        until the update has left for more than half of the workers. Phases overlap: they do not add up to a round.""",
        "s",
        query(
            "sum by (phase) (rate(solon_round_phase_seconds_sum{$$}[$$])) / sum by (phase) (rate(solon_round_phase_seconds_count{$$}[$$]))",
            "{{phase}}",
        ),
    ),
    series(
        "Workers",
        "Workers with a session, and how many the job has.",
        "none",
        query("sum by (instance) (solon_worker_connected{$$})", "connected, {{instance}}"),
        query("solon_job_workers{$$}", "job, {{instance}}"),
    ),
    series(
        "Margin of each group",
        "How many more workers of a group could have been missing in the last round: arrived, less its liars, less needed. Below 0 it was undecodable. With early decision (rounds.linger_ms = 0) it is small: a round does not wait for the rest.",
        "none",
        query("solon_group_margin_workers{$$}", "group {{group}}"),
        below_zero=True,
    ),
    series(
        "Traffic",
        "Bytes per second that the daemon received (shards) and sent (updates, reports, credits).",
        "Bps",
        query("sum by (direction) (rate(solon_bytes_total{$$}[$$]))", "{{direction}}"),
    ),
]

MACHINE = [
    series(
        "Busy reactors",
        "The part of the time for which a reactor (a thread, on a core of its own if cores.pin is set) had something to do. The one nearest to 100 % limits the job.",
        "percentunit",
        query(
            "rate(solon_reactor_busy_seconds_total{$$}[$$]) * on (job, instance, reactor) group_left (core, stages) solon_reactor_info{$$}",
            "{{reactor}}: {{stages}}, core {{core}}",
        ),
        max=1,
    ),
    series(
        "Busy stages",
        "Time for which each stage was busy per second, on all its cores together.",
        "percentunit",
        query("sum by (stage) (rate(solon_stage_busy_seconds_total{$$}[$$]))", "{{stage}}"),
        stacked=True,
    ),
    series(
        "Processor",
        "Seconds of processor time per second, of the whole process with the kernel's work for it.",
        "percentunit",
        query("rate(process_cpu_seconds_total{$$}[$$])", "{{instance}}"),
    ),
    series(
        "Memory",
        "Resident memory. It is taken at the start and does not grow after that.",
        "bytes",
        query("process_resident_memory_bytes{$$}", "{{instance}}"),
    ),
    series(
        "File descriptors",
        "Open ones, and how many the process may have. It needs some six per worker.",
        "none",
        query("process_open_fds{$$}", "open, {{instance}}"),
        query("process_max_fds{$$}", "limit, {{instance}}"),
    ),
    series(
        "Log and journal",
        "Journal writes that failed, and events that the log missed, per second. Both are 0 in healthy operation.",
        "ops",
        query("rate(solon_journal_errors_total{$$}[$$])", "journal errors"),
        query("rate(solon_events_lost_total{$$}[$$])", "events the log missed"),
    ),
]

DASHBOARD = dashboard(
    "solon-overview",
    "Solon: Overview",
    "Is the job well, and if not, where to look. Every panel can be read for one daemon; what the metrics mean stands in docs/operations.md.",
    ("Now", NOW),
    ("Rounds", ROUNDS),
    ("Daemon and machine", MACHINE),
)
