//! How a worker computes, in a form that can be compared: members of a group that compute differently do not get the same bits.
//!
//! A worker tells its daemon a hash of each field, never its text: what a peer chooses reaches no log. Who reads the daemon's log
//! learns which fields differ between which workers, and each worker can say its own text.

use std::fmt;

/// One part of how a worker computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// What computes the gradient: torch, numpy.
    Framework,
    /// Its version.
    Version,
    /// How many threads share a sum.
    Threads,
    /// What the processor can do; or which GPU.
    Device,
    /// The type of the numbers, and what changes their arithmetic.
    Dtype,
}

impl Field {
    /// Every field, in the order of the wire.
    pub const ALL: [Field; 5] = [Field::Framework, Field::Version, Field::Threads, Field::Device, Field::Dtype];

    /// Its name, for logs and callers.
    pub fn name(self) -> &'static str {
        match self {
            Field::Framework => "framework",
            Field::Version => "version",
            Field::Threads => "threads",
            Field::Device => "device",
            Field::Dtype => "dtype",
        }
    }
}

/// A set of fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fields(u8);

impl Fields {
    /// The set as a number: bit 0 is the first of [`Field::ALL`].
    pub fn bits(self) -> u64 {
        self.0.into()
    }

    /// The set that a number stands for; `None` if there are no such fields.
    pub fn from_bits(bits: u64) -> Option<Fields> {
        (bits < 1 << Field::ALL.len()).then_some(Fields(bits as u8))
    }

    /// Nothing is in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What is in it, in the order of [`Field::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Field> {
        Field::ALL.into_iter().filter(move |field| self.0 >> *field as u8 & 1 == 1)
    }
}

impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, field) in self.iter().enumerate() {
            write!(f, "{}{}", if at == 0 { "" } else { ", " }, field.name())?;
        }
        Ok(())
    }
}

/// How a worker computes, in words of its own. An empty field says nothing, and is equal to every other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    /// See [`Field::Framework`].
    pub framework: String,
    /// See [`Field::Version`].
    pub version: String,
    /// See [`Field::Threads`].
    pub threads: String,
    /// See [`Field::Device`].
    pub device: String,
    /// See [`Field::Dtype`].
    pub dtype: String,
}

impl Fingerprint {
    /// What a field says.
    pub fn get(&self, field: Field) -> &str {
        match field {
            Field::Framework => &self.framework,
            Field::Version => &self.version,
            Field::Threads => &self.threads,
            Field::Device => &self.device,
            Field::Dtype => &self.dtype,
        }
    }

    /// Where a field is said.
    pub fn get_mut(&mut self, field: Field) -> &mut String {
        match field {
            Field::Framework => &mut self.framework,
            Field::Version => &mut self.version,
            Field::Threads => &mut self.threads,
            Field::Device => &mut self.device,
            Field::Dtype => &mut self.dtype,
        }
    }

    /// What the daemon is told of it.
    pub fn marks(&self) -> Marks {
        Marks(Field::ALL.map(|field| match self.get(field) {
            "" => 0,
            text => {
                let hash = blake3::derive_key("solon fingerprint, version 1", text.as_bytes());
                u64::from_le_bytes(hash[..8].try_into().expect("eight bytes")).max(1)
            }
        }))
    }

    /// These fields of it, for a person: `threads "2", device "AVX2"`.
    pub fn describe(&self, fields: Fields) -> String {
        let one = |field: Field| format!("{} {:?}", field.name(), self.get(field));
        fields.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

/// Bytes of [`Marks`].
pub(super) const MARKS_BYTES: usize = 8 * Field::ALL.len();

/// What the daemon knows of how a worker computes: a hash of each field, 0 where nothing was said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Marks([u64; Field::ALL.len()]);

impl Marks {
    /// Was anything said?
    pub fn is_known(&self) -> bool {
        self.0 != [0; Field::ALL.len()]
    }

    /// The fields of which both say something, and not the same.
    pub fn differences(&self, other: &Marks) -> Fields {
        let differs = |field: Field| {
            let (mine, theirs) = (self.0[field as usize], other.0[field as usize]);
            mine != theirs && mine != 0 && theirs != 0
        };
        Fields(Field::ALL.into_iter().filter(|field| differs(*field)).fold(0, |bits, field| bits | 1 << field as u8))
    }

    pub(super) fn to_bytes(self) -> [u8; MARKS_BYTES] {
        let mut bytes = [0; MARKS_BYTES];
        for (place, mark) in bytes.chunks_exact_mut(8).zip(self.0) {
            place.copy_from_slice(&mark.to_le_bytes());
        }
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8; MARKS_BYTES]) -> Marks {
        let one = |at: usize| u64::from_le_bytes(bytes[8 * at..8 * at + 8].try_into().expect("eight bytes"));
        Marks(std::array::from_fn(one))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn torch(threads: &str, device: &str) -> Fingerprint {
        let (framework, version) = ("torch".into(), "2.1.0".into());
        Fingerprint { framework, version, threads: threads.into(), device: device.into(), dtype: String::new() }
    }

    #[test]
    fn fields_differ_where_both_say_something_else() {
        let one = torch("1", "AVX2").marks();
        assert!(one.differences(&one).is_empty());
        let other = torch("2", "AVX512").marks();
        assert_eq!(one.differences(&other).to_string(), "threads, device");
        assert_eq!(one.differences(&other), other.differences(&one));
        let quiet = torch("", "AVX512").marks();
        assert_eq!(one.differences(&quiet).to_string(), "device");
        assert!(!Marks::default().is_known() && quiet.is_known());
        assert!(one.differences(&Marks::default()).is_empty(), "who says nothing differs from nobody");
        assert_eq!(Fingerprint::default().marks(), Marks::default());
    }

    #[test]
    fn marks_and_sets_of_fields_survive_the_wire() {
        let marks = torch("1", "AVX2").marks();
        assert_eq!(Marks::from_bytes(&marks.to_bytes()), marks);
        for bits in 0..32 {
            assert_eq!(Fields::from_bits(bits).unwrap().bits(), bits);
        }
        assert!(Fields::from_bits(32).is_none() && Fields::from_bits(u64::MAX).is_none());
    }

    #[test]
    fn a_worker_can_say_its_own_words() {
        let fields = Fields::from_bits(0b1100).unwrap();
        assert_eq!(torch("2", "AVX2").describe(fields), "threads \"2\", device \"AVX2\"");
        let mut fingerprint = Fingerprint::default();
        for field in Field::ALL {
            fingerprint.get_mut(field).push_str(field.name());
            assert_eq!(fingerprint.get(field), field.name());
        }
    }
}
