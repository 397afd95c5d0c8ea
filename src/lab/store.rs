//! The samples of a data set in one plain file, from which a worker reads those that it needs in a step.
//!
//! Forty-five workers with a data set each would hold it forty-five times, and unpack it as often; here the system's cache holds it once.
//!
//! ```text
//! | samples | inputs | classes | brightest |   u32 each, little-endian
//! | labels, one byte each | pixels, a row per sample |
//! ```

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::demo::{Dataset, Shape};

const HEADER: usize = 16;

/// A file of samples, open for reading.
#[derive(Debug)]
pub struct Store {
    file: File,
    labels: Vec<u8>,
    inputs: usize,
    classes: usize,
    brightest: u8,
}

impl Store {
    /// Writes `data` to a file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(data: &Dataset, path: &Path) -> io::Result<()> {
        let mut file = io::BufWriter::new(File::create(path)?);
        for number in [data.len(), data.inputs(), data.classes(), usize::from(data.brightest())] {
            file.write_all(&(number as u32).to_le_bytes())?;
        }
        let labels: Vec<u8> = (0..data.len()).map(|sample| data.label(sample) as u8).collect();
        file.write_all(&labels)?;
        file.write_all(data.pixels())?;
        file.flush()
    }

    /// Opens a file that [`Store::write`] has written.
    ///
    /// # Errors
    /// If it cannot be read, or has another length than its header says.
    pub fn open(path: &Path) -> io::Result<Store> {
        let file = File::open(path)?;
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, 0)?;
        let number =
            |at: usize| u32::from_le_bytes(header[4 * at..4 * at + 4].try_into().expect("four bytes")) as usize;
        let (samples, inputs, classes, brightest) = (number(0), number(1), number(2), number(3) as u8);
        if file.metadata()?.len() != (HEADER + samples + samples * inputs) as u64 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "has another length than its header says"));
        }
        let mut labels = vec![0; samples];
        file.read_exact_at(&mut labels, HEADER as u64)?;
        Ok(Store { file, labels, inputs, classes, brightest })
    }

    /// Samples there are.
    pub fn samples(&self) -> usize {
        self.labels.len()
    }

    /// The shape of a model that learns them.
    pub fn shape(&self, hidden: usize) -> Shape {
        Shape { inputs: self.inputs, hidden, classes: self.classes }
    }

    /// These samples, in this order.
    ///
    /// # Errors
    /// If they cannot be read.
    ///
    /// # Panics
    /// If there is none, or one is not in the file.
    pub fn take(&self, samples: &[u32]) -> io::Result<Dataset> {
        let first_row = (HEADER + self.labels.len()) as u64;
        let mut pixels = vec![0; samples.len() * self.inputs];
        for (row, sample) in pixels.chunks_exact_mut(self.inputs).zip(samples) {
            self.file.read_exact_at(row, first_row + u64::from(*sample) * self.inputs as u64)?;
        }
        let labels = samples.iter().map(|sample| self.labels[*sample as usize]).collect();
        Ok(Dataset::new(pixels, labels, self.classes, self.brightest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::Split;

    #[test]
    fn samples_are_those_of_the_data_set_in_the_order_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let (path, data) = (directory.path().join("train"), Split::digits().train);
        Store::write(&data, &path).unwrap();
        let store = Store::open(&path).unwrap();
        assert_eq!((store.samples(), store.shape(8)), (data.len(), Shape::of(&data, 8)));
        let taken = store.take(&[7, 1436, 0]).unwrap();
        for (at, sample) in [7, 1436, 0].into_iter().enumerate() {
            assert_eq!(taken.label(at), data.label(sample));
            assert!(taken.features(at).eq(data.features(sample)));
        }
    }

    #[test]
    fn a_file_cut_short_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("train");
        Store::write(&Split::digits().train, &path).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(5000).unwrap();
        assert!(Store::open(&path).unwrap_err().to_string().contains("another length"));
    }
}
