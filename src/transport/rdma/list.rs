//! Which ports may be used, in the syntax of NCCL's `NCCL_IB_HCA`, which operators of training clusters know.
//!
//! | Written | Allows |
//! |---|---|
//! | nothing | every port |
//! | `mlx5` | every port of devices whose names begin with `mlx5` |
//! | `mlx5_0:1,mlx5_1` | port 1 of devices that begin with `mlx5_0`, all ports of those that begin with `mlx5_1` |
//! | `=mlx5_1` | `mlx5_1`, but not `mlx5_10` |
//! | `^mlx5_2`, `^=mlx5_2:1` | all but these |

use std::fmt;
use std::str::FromStr;

/// A list of devices and ports that may be used, or may not. The default allows every one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceList {
    sense: Sense,
    compare: Compare,
    /// Empty: everything is allowed.
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sense {
    #[default]
    Only,
    AllBut,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Compare {
    #[default]
    Prefix,
    Exact,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    device: String,
    /// All of them, if none is named.
    port: Option<u8>,
}

/// A text that is not a [`DeviceList`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("found {found}, expected {}", DeviceList::EXPECTS)]
pub struct DeviceListError {
    /// The part that is wrong, and why.
    pub found: String,
}

impl DeviceList {
    /// What a text must be to become one.
    pub const EXPECTS: &'static str =
        "RDMA devices as NCCL_IB_HCA has them, such as \"mlx5_0:1,mlx5_1\", \"=mlx5_0\" or \"^mlx5_2\"";

    /// May this port be used?
    pub fn allows(&self, device: &str, port: u8) -> bool {
        let named = |entry: &Entry| {
            let same = match self.compare {
                Compare::Prefix => device.starts_with(&entry.device),
                Compare::Exact => device == entry.device,
            };
            same && entry.port.is_none_or(|its| its == port)
        };
        self.is_everything() || self.entries.iter().any(named) == (self.sense == Sense::Only)
    }

    /// Is nothing excluded?
    pub fn is_everything(&self) -> bool {
        self.entries.is_empty()
    }
}

impl FromStr for DeviceList {
    type Err = DeviceListError;

    fn from_str(text: &str) -> Result<DeviceList, DeviceListError> {
        let rest = text.trim();
        if rest.is_empty() {
            return Ok(DeviceList::default());
        }
        let (sense, rest) = match rest.strip_prefix('^') {
            Some(rest) => (Sense::AllBut, rest),
            None => (Sense::Only, rest),
        };
        let (compare, rest) = match rest.strip_prefix('=') {
            Some(rest) => (Compare::Exact, rest),
            None => (Compare::Prefix, rest),
        };
        let entries = rest.split(',').map(|part| entry(part.trim(), text)).collect::<Result<_, _>>()?;
        Ok(DeviceList { sense, compare, entries })
    }
}

fn entry(part: &str, text: &str) -> Result<Entry, DeviceListError> {
    let wrong = |found: String| Err(DeviceListError { found });
    let (device, port) = match part.split_once(':') {
        Some((device, port)) => (device, Some(port)),
        None => (part, None),
    };
    if device.is_empty() {
        return wrong(format!("an entry without a device in {text:?}"));
    }
    // The kernel's names; a '^' or '=' in the middle would otherwise match nothing, without a word.
    if !device.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')) {
        let hint = if device.starts_with(['^', '=']) { " ('^' and '=' stand once, before the whole list)" } else { "" };
        return wrong(format!("the device {device:?}{hint}"));
    }
    let port = match port {
        None => None,
        Some(port) => match port.parse::<u8>() {
            Ok(number) if number > 0 && port.starts_with(|c: char| c.is_ascii_digit()) => Some(number),
            _ => return wrong(format!("the port {port:?} of {device}, which is not a number from 1 to 255")),
        },
    };
    Ok(Entry { device: device.into(), port })
}

impl fmt::Display for DeviceList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.sense == Sense::AllBut {
            f.write_str("^")?;
        }
        if self.compare == Compare::Exact {
            f.write_str("=")?;
        }
        for (at, Entry { device, port }) in self.entries.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{device}")?;
            if let Some(port) = port {
                write!(f, ":{port}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(text: &str) -> DeviceList {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn lists_allow_what_nccl_allows() {
        let ports = [("mlx5_0", 1), ("mlx5_0", 2), ("mlx5_1", 1), ("mlx5_10", 1), ("rxe0", 1)];
        for (text, allowed) in [
            ("", &[0, 1, 2, 3, 4][..]),
            ("  ", &[0, 1, 2, 3, 4]),
            ("mlx5", &[0, 1, 2, 3]),
            ("mlx5_0:1", &[0]),
            ("mlx5_1", &[2, 3]),
            ("=mlx5_1", &[2]),
            ("=mlx5", &[]),
            ("=mlx5_0:2,mlx5_1", &[1, 2]),
            ("mlx5_0:2, rxe", &[1, 4]),
            ("^mlx5", &[4]),
            ("^mlx5_0:1", &[1, 2, 3, 4]),
            ("^mlx5_1", &[0, 1, 4]),
            ("^=mlx5_1", &[0, 1, 3, 4]),
            ("^=mlx5_0:1,rxe0", &[1, 2, 3]),
        ] {
            let list = list(text);
            let found: Vec<usize> = (0..ports.len()).filter(|at| list.allows(ports[*at].0, ports[*at].1)).collect();
            assert_eq!(found, allowed, "{text}");
        }
    }

    #[test]
    fn a_bad_entry_is_named() {
        for (text, part) in [
            ("mlx5_0,,mlx5_1", "an entry without a device in \"mlx5_0,,mlx5_1\""),
            ("mlx5_0,", "an entry without a device"),
            ("^", "an entry without a device in \"^\""),
            ("^=", "an entry without a device"),
            (":1", "an entry without a device"),
            ("mlx5_0:0", "the port \"0\" of mlx5_0"),
            ("mlx5_0:", "the port \"\" of mlx5_0"),
            ("mlx5_0:256", "the port \"256\""),
            ("mlx5_0:+1", "the port \"+1\""),
            ("mlx5_0:1:2", "the port \"1:2\""),
            ("mlx5_0,^mlx5_1", "the device \"^mlx5_1\" ('^' and '=' stand once"),
            ("=^mlx5_0", "the device \"^mlx5_0\""),
            ("mlx5 0", "the device \"mlx5 0\""),
        ] {
            let text = text.parse::<DeviceList>().unwrap_err().to_string();
            assert!(text.contains(part) && text.contains("expected RDMA devices as NCCL_IB_HCA"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_read_survives_being_written(text in "\\^?=?[a-z0-9_:,^= ]{0,20}|\\PC*") {
            if let Ok(list) = text.parse::<DeviceList>() {
                prop_assert_eq!(list.to_string().parse(), Ok(list));
            }
        }

        #[test]
        fn excluding_is_the_opposite_of_naming(
            text in "=?[a-c]{1,3}(:[1-3])?(,[a-c]{1,3}(:[1-3])?){0,3}", device in "[a-c]{1,4}", port in 1u8..4,
        ) {
            prop_assert_ne!(list(&text).allows(&device, port), list(&format!("^{text}")).allows(&device, port));
        }
    }
}
