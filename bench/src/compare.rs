//! `bench compare`: servers side by side in one run, and a verdict.
//!
//! Every server runs on the same core, the load on another. Turns alternate round by round, so that
//! what changes on the machine meanwhile meets all of them. The cost is CPU time a request or a
//! delivery; ratios are formed inside a round and then summarised.

mod fresh;
mod live;
mod purge;
mod requests;
mod scene;
mod streams;

use serde::Serialize;

use crate::{
    command,
    failure::Failure,
    generator::Errors,
    options::{Bound, Case, CompareOptions, Opponent},
    process::Machine,
    record::Spread,
    report,
    streams::found::SseRun,
};

/// Runs a case and judges it.
///
/// # Errors
/// A server is missing or misbehaves, or a bound is missed.
pub(crate) fn run(options: &CompareOptions) -> Result<(), Failure> {
    if options.rounds == 0 || options.duration.is_zero() {
        return Err(Failure::usage("--rounds and --duration are at least 1"));
    }
    if options.server_core == options.load_core {
        report::talk("server and load share a core: delays mean little");
    }
    let mut verdicts = Vec::new();
    let contenders = match options.case {
        Case::Purge => purge::run(options, &mut verdicts)?,
        Case::Sse100k => streams::run(options)?,
        Case::SseTopics | Case::SseBeside | Case::SseSlow => live::run(options)?,
        Case::Idle8k | Case::Restart1k => fresh::run(options)?,
        _ => requests::run(options)?,
    };
    for bound in &options.at_most {
        verdicts.extend(judge(*bound, &contenders)?);
    }
    if let Some(max) = options.rows_at_most {
        verdicts.extend(judge_rows(max, &contenders)?);
    }
    if let Some(max) = options.bytes_at_most {
        verdicts.push(judge_bytes(max, &contenders)?);
    }
    let comparison = Comparison { case: format!("{:?}", options.case), contenders, verdicts };
    let machine = Machine::look();
    report::comparison(options, &comparison, &machine);
    command::write_json(options.json.as_deref(), &report::Document::new(&machine, &comparison))?;
    match comparison.verdicts.iter().filter(|verdict| !verdict.holds).count() {
        0 => Ok(()),
        missed => Err(Failure::error(format!("{missed} bounds missed"))),
    }
}

/// Everything a comparison found.
#[derive(Debug, Serialize)]
pub(crate) struct Comparison {
    pub(crate) case: String,
    pub(crate) contenders: Vec<Contender>,
    pub(crate) verdicts: Vec<Verdict>,
}

/// A server and its turns, one a round.
#[derive(Debug, Serialize)]
pub(crate) struct Contender {
    #[serde(serialize_with = "as_text")]
    pub(crate) who: Who,
    /// What tells the rows of one server apart; empty when there is one only.
    pub(crate) scene: &'static str,
    /// What the program says of itself.
    pub(crate) version: String,
    /// Its configuration in full.
    pub(crate) plan: String,
    pub(crate) choice: String,
    pub(crate) turns: Vec<Turn>,
}

/// One measured turn.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Turn {
    /// CPU time of the server for one answer or delivery.
    pub(crate) cpu_us: f64,
    /// Answers or deliveries a second.
    pub(crate) per_s: f64,
    /// Share of its core that the server used.
    pub(crate) busy: f64,
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) p999_us: u64,
    pub(crate) rss_bytes: u64,
    /// Memory of each connection, where that is what the case is about.
    pub(crate) idle: Option<IdleMemory>,
    pub(crate) errors: Errors,
    /// Of a turn with streams.
    pub(crate) streams: Option<SseRun>,
}

/// What a connection that waits for its next request takes.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct IdleMemory {
    /// Resident memory of the server's processes.
    pub(crate) user_bytes: f64,
    /// Slab memory of the kernel, of one end; unknown to anyone but root.
    pub(crate) kernel_bytes: Option<f64>,
}

/// A contender.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Who {
    Pharos,
    Opponent(Opponent),
}

/// Whether a bound holds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Verdict {
    /// What is bounded, in words.
    pub(crate) what: String,
    pub(crate) ratio_max: f64,
    pub(crate) ratio: Spread,
    /// The median of the rounds' ratios is at most the bound.
    pub(crate) holds: bool,
}

impl Who {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pharos => "pharos",
            Self::Opponent(Opponent::Floor) => "floor",
            Self::Opponent(Opponent::Nginx) => "nginx",
            Self::Opponent(Opponent::Haproxy) => "haproxy",
            Self::Opponent(Opponent::Varnish) => "varnish",
            Self::Opponent(Opponent::Nchan) => "nchan",
        }
    }
}

impl Verdict {
    fn of(what: String, ratio_max: f64, ratio: Spread) -> Self {
        Self { what, ratio_max, holds: ratio.median <= ratio_max, ratio }
    }
}

impl Contender {
    /// The server, and which of its rows this is.
    pub(crate) fn title(&self) -> String {
        format!("{} {}", self.who.name(), self.scene).trim_end().to_owned()
    }

    pub(crate) fn spread(&self, of: impl Fn(&Turn) -> f64) -> Option<Spread> {
        Spread::of(&self.turns.iter().map(of).collect::<Vec<_>>())
    }
}

impl Comparison {
    /// What Pharos's cost is divided by, or its row that this one is divided by.
    pub(crate) fn ratio(&self, row: &Contender) -> Option<(Spread, &'static str)> {
        match row.who {
            Who::Pharos => {
                let first = self.contenders.iter().find(|first| first.who == Who::Pharos)?;
                let compares = first.scene != row.scene && !first.has_peers(&self.contenders);
                let ratio = compares.then(|| ratios(row, first)).flatten()?;
                Some((ratio, "× the first"))
            }
            Who::Opponent(_) => Some((ratios(pharos_of(row, &self.contenders)?, row)?, "")),
        }
    }
}

impl Contender {
    fn has_peers(&self, contenders: &[Contender]) -> bool {
        contenders.iter().any(|other| other.who != self.who && other.scene == self.scene)
    }
}

/// The row of Pharos that a row of a peer stands beside.
fn pharos_of<'a>(row: &Contender, contenders: &'a [Contender]) -> Option<&'a Contender> {
    contenders.iter().find(|one| one.who == Who::Pharos && one.scene == row.scene)
}

/// Cost of one divided by cost of the other, round by round.
pub(crate) fn ratios(one: &Contender, other: &Contender) -> Option<Spread> {
    let rounds = one.turns.iter().zip(&other.turns);
    let ratios: Vec<f64> = rounds.map(|(one, other)| one.cpu_us / other.cpu_us).collect();
    Spread::of(&ratios).filter(|spread| spread.max.is_finite())
}

/// A verdict for each row of a peer.
fn judge(bound: Bound, contenders: &[Contender]) -> Result<Vec<Verdict>, Failure> {
    let who = Who::Opponent(bound.opponent);
    let missing = || Failure::usage(format!("--at-most {}: not in this run", who.name()));
    let rows: Vec<&Contender> = contenders.iter().filter(|row| row.who == who).collect();
    if rows.is_empty() {
        return Err(missing());
    }
    let verdict = |row: &Contender| {
        let pharos = pharos_of(row, contenders).ok_or_else(missing)?;
        let ratio = ratios(pharos, row).ok_or_else(missing)?;
        let what = format!("cost of pharos ÷ {}", row.title());
        Ok(Verdict::of(what, bound.ratio_max, ratio))
    };
    rows.into_iter().map(verdict).collect()
}

/// A verdict for each later row of Pharos.
fn judge_rows(ratio_max: f64, contenders: &[Contender]) -> Result<Vec<Verdict>, Failure> {
    let mut rows = contenders.iter().filter(|row| row.who == Who::Pharos);
    let first = rows.next();
    let rows: Vec<&Contender> = rows.collect();
    let Some(first) = first.filter(|_| !rows.is_empty()) else {
        return Err(Failure::usage("--rows-at-most: this run has one row of pharos"));
    };
    let verdict = |row: &Contender| {
        let ratio = ratios(row, first).ok_or_else(|| Failure::error("a row has no cost"))?;
        Ok(Verdict::of(format!("cost of {} ÷ {}", row.scene, first.scene), ratio_max, ratio))
    };
    rows.into_iter().map(verdict).collect()
}

/// Bytes of user space a stream or idle connection, of Pharos.
fn judge_bytes(bytes_max: f64, contenders: &[Contender]) -> Result<Verdict, Failure> {
    let pharos = contenders.iter().find(|contender| contender.who == Who::Pharos);
    let of_streams =
        |turn: &Turn| Some(turn.streams.as_ref()?.memory.as_ref()?.user_bytes_per_stream);
    let bytes = |turn: &Turn| turn.idle.map(|idle| idle.user_bytes).or_else(|| of_streams(turn));
    let measured: Vec<f64> =
        pharos.map(|pharos| pharos.turns.iter().filter_map(bytes).collect()).unwrap_or_default();
    let spread = Spread::of(&measured)
        .ok_or_else(|| Failure::usage("--bytes-at-most: this run has no memory of pharos"))?;
    Ok(Verdict::of("bytes each in the process of pharos".to_owned(), bytes_max, spread))
}

fn as_text<S: serde::Serializer>(who: &Who, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(who.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contender(who: Who, costs: &[f64]) -> Contender {
        let turn = |&cpu_us: &f64| Turn {
            cpu_us,
            per_s: 1.0,
            busy: 1.0,
            p50_us: 1,
            p99_us: 1,
            p999_us: 1,
            rss_bytes: 1,
            idle: None,
            errors: Errors::default(),
            streams: None,
        };
        let turns = costs.iter().map(turn).collect();
        let (version, plan, choice) = (String::new(), String::new(), String::new());
        Contender { who, scene: "", version, plan, choice, turns }
    }

    #[test]
    fn ratios_are_formed_inside_a_round() {
        // The machine was twice as slow in the second round: the ratio does not notice.
        let pharos = contender(Who::Pharos, &[6.0, 12.0, 6.6]);
        let nginx = contender(Who::Opponent(Opponent::Nginx), &[12.0, 24.0, 12.0]);
        let ratio = ratios(&pharos, &nginx).expect("rounds");
        assert_eq!((ratio.min, ratio.median), (0.5, 0.5));
        assert!((ratio.max - 0.55).abs() < 1e-9);
    }

    #[test]
    fn a_bound_is_judged_by_the_median_and_needs_its_peer() {
        let contenders = [
            contender(Who::Pharos, &[6.0, 6.0, 9.0]),
            contender(Who::Opponent(Opponent::Nginx), &[10.0, 10.0, 10.0]),
        ];
        let judge = |text: &str| judge(text.parse().expect("bound"), &contenders);
        assert!(judge("nginx=0.6").expect("compared")[0].holds);
        assert!(!judge("nginx=0.59").expect("compared")[0].holds);
        assert!(judge("haproxy=0.8").is_err());
    }

    #[test]
    fn a_peers_row_stands_beside_the_row_of_pharos_with_the_same_scene() {
        let row = |who, scene, cost| Contender { scene, ..contender(who, &[cost]) };
        let nginx = Who::Opponent(Opponent::Nginx);
        let contenders = [
            row(Who::Pharos, "one", 1.0),
            row(Who::Pharos, "many", 4.0),
            row(nginx, "one", 2.0),
            row(nginx, "many", 5.0),
        ];
        let bound = "nginx=0.6".parse().expect("bound");
        let verdicts = judge(bound, &contenders).expect("compared");
        let held: Vec<bool> = verdicts.iter().map(|verdict| verdict.holds).collect();
        assert_eq!(held, [true, false]);
        let rows = judge_rows(3.0, &contenders[..2]).expect("two rows");
        assert_eq!((rows.len(), rows[0].ratio.median, rows[0].holds), (1, 4.0, false));
        assert!(judge_rows(3.0, &contenders[..1]).is_err());
    }
}
