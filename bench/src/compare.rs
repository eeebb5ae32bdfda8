//! `bench compare`: servers side by side in one run, and a verdict.
//!
//! Every server runs on the same core, the load on another. Turns alternate round by round, so that
//! what changes on the machine meanwhile meets all of them. The cost is CPU time a request or a
//! delivery; ratios are formed inside a round and then summarised.

mod requests;
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
    streams::SseRun,
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
    let contenders = match options.case {
        Case::Hit1k | Case::Hit1kPipelined | Case::Hit100k | Case::Miss => requests::run(options)?,
        Case::Sse100k => streams::run(options)?,
    };
    let verdicts: Vec<Verdict> =
        options.at_most.iter().map(|bound| judge(*bound, &contenders)).collect::<Result<_, _>>()?;
    let mut verdicts = verdicts;
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
    pub(crate) rss_bytes: u64,
    pub(crate) errors: Errors,
    /// Of a turn with streams.
    pub(crate) streams: Option<SseRun>,
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

impl Contender {
    pub(crate) fn spread(&self, of: impl Fn(&Turn) -> f64) -> Option<Spread> {
        Spread::of(&self.turns.iter().map(of).collect::<Vec<_>>())
    }
}

impl Comparison {
    pub(crate) fn pharos(&self) -> Option<&Contender> {
        self.contenders.iter().find(|contender| contender.who == Who::Pharos)
    }
}

/// Cost of one divided by cost of the other, round by round.
pub(crate) fn ratios(one: &Contender, other: &Contender) -> Option<Spread> {
    let rounds = one.turns.iter().zip(&other.turns);
    let ratios: Vec<f64> = rounds.map(|(one, other)| one.cpu_us / other.cpu_us).collect();
    Spread::of(&ratios).filter(|spread| spread.max.is_finite())
}

fn judge(bound: Bound, contenders: &[Contender]) -> Result<Verdict, Failure> {
    let find = |who: Who| contenders.iter().find(|contender| contender.who == who);
    let who = Who::Opponent(bound.opponent);
    let ratio = find(Who::Pharos).zip(find(who)).and_then(|(one, other)| ratios(one, other));
    let ratio = ratio.ok_or_else(|| {
        Failure::usage(format!("--at-most {}: not compared with in this run", who.name()))
    })?;
    Ok(Verdict {
        what: format!("cost of pharos ÷ {}", who.name()),
        ratio_max: bound.ratio_max,
        ratio,
        holds: ratio.median <= bound.ratio_max,
    })
}

/// Bytes of user space a stream, of Pharos.
fn judge_bytes(bytes_max: f64, contenders: &[Contender]) -> Result<Verdict, Failure> {
    let pharos = contenders.iter().find(|contender| contender.who == Who::Pharos);
    let bytes = |turn: &Turn| Some(turn.streams.as_ref()?.memory.as_ref()?.user_bytes_per_stream);
    let measured: Vec<f64> =
        pharos.map(|pharos| pharos.turns.iter().filter_map(bytes).collect()).unwrap_or_default();
    let spread = Spread::of(&measured)
        .ok_or_else(|| Failure::usage("--bytes-at-most: no streams of pharos in this run"))?;
    Ok(Verdict {
        what: "bytes a stream in the process of pharos".to_owned(),
        ratio_max: bytes_max,
        ratio: spread,
        holds: spread.median <= bytes_max,
    })
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
            rss_bytes: 1,
            errors: Errors::default(),
            streams: None,
        };
        let turns = costs.iter().map(turn).collect();
        Contender { who, version: String::new(), plan: String::new(), choice: String::new(), turns }
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
        assert!(judge("nginx=0.6").expect("compared").holds);
        assert!(!judge("nginx=0.59").expect("compared").holds);
        assert!(judge("haproxy=0.8").is_err());
    }
}
