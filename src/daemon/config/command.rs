//! The command line of `solond`, and how it, the environment and the file become a configuration.

use super::file::File;
use super::layers::Layers;
use super::problem::quote;
use super::{Config, Place, Problem, build, example_config, render};
use crate::daemon::exit::Exit;
use crate::daemon::settings::{Applied, DefaultValue, Kind, SETTINGS, Setting};
use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command, ValueHint};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// What the command line asks for.
#[derive(Debug)]
pub enum Request {
    /// Serve, with this configuration.
    Serve(Box<Loaded>),
    /// Print this to standard output and end with [`Exit::Success`].
    Answer(String),
}

/// A configuration that is right.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is probably not meant, but does not stop anything.
    pub warnings: Vec<Problem>,
    layers: Layers,
}

impl Loaded {
    /// Every setting, as a file that means the same, with where each value comes from.
    pub fn print(&self) -> String {
        render::print(self.layers.entries())
    }

    /// The settings that have another value in `new`, by name, and when each is applied.
    pub fn changes(&self, new: &Loaded) -> Vec<(String, Applied)> {
        let pairs = self.layers.entries().iter().zip(new.layers.entries());
        pairs
            .filter(|(old, new)| old.value != new.value)
            .map(|(old, _)| (old.setting.name(), old.setting.applied))
            .collect()
    }
}

/// Why there is nothing to be served. Its text is for standard error.
#[derive(Debug)]
pub enum Refusal {
    /// The command line itself cannot be read.
    Usage(clap::Error),
    /// The configuration is wrong.
    Wrong {
        /// All that is wrong, in the order file, environment, flags.
        problems: Vec<Problem>,
        /// What is probably not meant.
        warnings: Vec<Problem>,
    },
}

impl Refusal {
    /// How the process ends.
    pub fn exit(&self) -> Exit {
        match self {
            Refusal::Usage(_) => Exit::Usage,
            Refusal::Wrong { .. } => Exit::Configuration,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Usage(error) => write!(f, "{}", error.render()),
            Refusal::Wrong { problems, warnings } => {
                warnings.iter().try_for_each(|warning| writeln!(f, "warning: {warning}"))?;
                problems.iter().try_for_each(|problem| writeln!(f, "error: {problem}"))?;
                let plural = if problems.len() == 1 { "" } else { "s" };
                writeln!(f, "solond: {} error{plural} in the configuration", problems.len())
            }
        }
    }
}

impl std::error::Error for Refusal {}

/// Reads the command line, and lays defaults, file, environment and flags over one another.
///
/// `args` begins with the name of the program, `env` may have any variables, `read_file` is asked for the file of
/// `--config` only. Nothing of the process itself is looked at.
///
/// # Errors
/// If the command line cannot be understood, or with all that is wrong with the configuration.
pub fn load(
    args: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
    read_file: &dyn Fn(&Path) -> io::Result<String>,
) -> Result<Request, Refusal> {
    let matches = match command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) if error.use_stderr() => return Err(Refusal::Usage(error)),
        Err(help) => return Ok(Request::Answer(help.render().to_string())),
    };
    if matches.get_flag(EXAMPLE) {
        return Ok(Request::Answer(example_config()));
    }
    let loaded = Box::new(resolve(&matches, env, read_file)?);
    let warnings = || loaded.warnings.iter().map(|warning| format!("warning: {warning}\n")).collect::<String>();
    Ok(if matches.get_flag(CHECK) {
        Request::Answer(warnings() + &render::summary(&loaded.config))
    } else if matches.get_flag(PRINT) {
        Request::Answer(loaded.print())
    } else {
        Request::Serve(loaded)
    })
}

fn resolve(
    matches: &ArgMatches,
    env: impl IntoIterator<Item = (OsString, OsString)>,
    read_file: &dyn Fn(&Path) -> io::Result<String>,
) -> Result<Loaded, Refusal> {
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    let mut layers = Layers::new();
    let path = matches.get_one::<PathBuf>(CONFIG).map(PathBuf::as_path);
    let text = path.map(|path| read_file(path).map_err(|error| problems.push(unreadable(path, &error))));
    let file = match (path, &text) {
        (Some(path), Some(Ok(text))) => Some(File::read(path, text, &mut layers, &mut problems)),
        _ => None,
    };
    layers.set_environment(env, &mut problems, &mut warnings);
    for (setting, spelling) in SETTINGS.iter().zip(SPELLINGS.iter()) {
        if let Some(text) = matches.get_one::<String>(&spelling.flag) {
            layers.set_flag(setting, text, &mut problems);
        }
    }
    // In what cannot be read may stand what seems to be missing or not to fit.
    let mut config = None;
    if !file.as_ref().is_some_and(|file| file.damaged) && !matches!(text, Some(Err(()))) {
        let locate = |setting: &Setting| file.as_ref().map_or(Place::Default, |file| file.place_of_missing(setting));
        layers.require(locate, path, &mut problems);
        config = build::build(&mut layers, &mut problems);
    }
    match config {
        Some(config) if problems.is_empty() => Ok(Loaded { config, warnings, layers }),
        _ => {
            problems.sort_by(|a, b| a.place.cmp(&b.place));
            Err(Refusal::Wrong { problems, warnings })
        }
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    Problem {
        place: Place::Flag("--config".into()),
        object: quote(&path.to_string_lossy()),
        found: format!("that it cannot be read ({error})"),
        expected: "a TOML file in UTF-8".into(),
        action: "check its name and permissions; `solond --example-config` prints one to begin with".into(),
    }
}

const CONFIG: &str = "config";
const CHECK: &str = "check-config";
const PRINT: &str = "print-config";
const EXAMPLE: &str = "example-config";

/// The command line of `solond`, with one flag per setting; help, completions and the manual page are made from it.
pub fn command() -> Command {
    let question = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
    let command = Command::new("solond")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Aggregates gradients; corrects lying, faulty and slow workers exactly")
        .after_help(
            "Settings come from the file, from the environment (SOLON_<SECTION>_<KEY>) and from flags; later wins.",
        )
        .arg(
            Arg::new(CONFIG)
                .long(CONFIG)
                .value_name("FILE")
                .value_parser(clap::value_parser!(PathBuf))
                .value_hint(ValueHint::FilePath)
                .help("Read settings from this TOML file"),
        )
        .arg(question(CHECK).help("List everything that is wrong with the configuration, then end"))
        .arg(question(PRINT).help("Print every setting and where it comes from, then end"))
        .arg(question(EXAMPLE).help("Print a commented configuration file with all defaults, then end"))
        .group(ArgGroup::new("question").args([CHECK, PRINT, EXAMPLE]));
    SETTINGS
        .iter()
        .zip(SPELLINGS.iter())
        .fold(command, |command, (setting, spelling)| command.arg(flag(setting, spelling)))
}

/// The parts of a flag that clap wants to live forever.
struct Spelling {
    flag: String,
    value_name: String,
}

static SPELLINGS: LazyLock<Vec<Spelling>> = LazyLock::new(|| {
    let spell = |setting: &Setting| Spelling {
        flag: setting.flag(),
        value_name: match setting.kind {
            Kind::Name => "NAME".into(),
            Kind::Integer { .. } | Kind::OneOf(_) | Kind::Factor | Kind::Fraction => "NUMBER".into(),
            Kind::Switch => "true|false".into(),
            Kind::Choice(_) => setting.key.to_uppercase(),
            Kind::Address => "IP:PORT".into(),
            Kind::Path => "PATH".into(),
            Kind::Cores => "CORES".into(),
            Kind::Devices | Kind::Weights => "LIST".into(),
        },
    };
    SETTINGS.iter().map(spell).collect()
});

fn flag(setting: &'static Setting, spelling: &'static Spelling) -> Arg {
    let default = match setting.default {
        DefaultValue::Value(text) => format!("[default: {}]", text.trim_matches('"')),
        DefaultValue::Unset(_) => "[not set by default]".into(),
        DefaultValue::Required(_) => "[required]".into(),
    };
    let unit = if setting.unit.is_empty() { String::new() } else { format!(" ({})", setting.unit) };
    let help = format!("{}{unit} {default}", setting.help);
    let arg = Arg::new(spelling.flag.as_str())
        .long(spelling.flag.as_str())
        .value_name(spelling.value_name.as_str())
        .help_heading(setting.section)
        .long_help(format!("{help}\n{}\n[environment: {}]", setting.doc, setting.environment()))
        .help(help)
        .allow_negative_numbers(true);
    match setting.kind {
        Kind::Choice(values) => arg.value_parser(Suggested(values)),
        Kind::Switch => arg.num_args(0..=1).default_missing_value("true"),
        Kind::Path => arg.value_hint(ValueHint::AnyPath),
        _ => arg,
    }
}

/// Shows the words of a choice in help and completions but takes any text: what is wrong with it is reported together
/// with all other problems.
#[derive(Clone)]
struct Suggested(fn() -> Vec<PossibleValue>);

impl TypedValueParser for Suggested {
    type Value = String;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<String, clap::Error> {
        StringValueParser::new().parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new((self.0)().into_iter()))
    }
}
