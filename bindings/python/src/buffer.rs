//! Other people's memory, where it is: 32-bit floats in one run, through Python's buffer protocol.
#![allow(unsafe_code)]

use pyo3::buffer::PyUntypedBuffer;
use pyo3::prelude::*;
use pyo3::types::PyMemoryView;

use crate::errors::{wrong_type, wrong_value};

const COPY: &str = "pass a contiguous array of 32-bit floats: numpy.ascontiguousarray(x, numpy.float32), or for a torch tensor \
                    x.float().contiguous().cpu().numpy()";

/// How 32-bit floats of this machine are called (Python's module struct; ctypes says the byte order).
const NATIVE: [&str; 4] = ["f", "@f", "=f", if cfg!(target_endian = "little") { "<f" } else { ">f" }];

/// A buffer that is held until this is dropped: nobody can resize or free it meanwhile.
pub(crate) struct Numbers(PyUntypedBuffer);

impl Numbers {
    /// The numbers of `object`, to be read.
    pub(crate) fn to_read(object: &Bound<'_, PyAny>) -> PyResult<Numbers> {
        let py = object.py();
        let kind = object.get_type().name().map_or_else(|_| "object".to_owned(), |name| name.to_string());
        // A memoryview fills in what exporters may leave out, such as strides.
        let buffer = PyMemoryView::from(object).and_then(|view| PyUntypedBuffer::get(&view)).map_err(|error| {
            wrong_type(py, format!("{kind} gives no access to its memory as a buffer ({})", error.value(py)), COPY)
        })?;
        if !buffer.is_c_contiguous() {
            let (shape, strides) = (buffer.shape(), buffer.strides());
            let cause = format!("this {kind} is not contiguous: shape {shape:?}, strides {strides:?} bytes");
            return Err(wrong_value(py, cause, COPY));
        }
        let format = buffer.format().to_string_lossy();
        if !NATIVE.contains(&&*format) || buffer.item_size() != size_of::<f32>() {
            let cause = format!("this {kind} holds items of format '{format}', expected 'f': 32-bit floats");
            return Err(wrong_type(py, cause, COPY));
        }
        if !buffer.buf_ptr().cast::<f32>().is_aligned() {
            return Err(wrong_value(py, format!("this {kind} begins at an address that is no multiple of 4"), COPY));
        }
        Ok(Numbers(buffer))
    }

    /// The numbers of `object`, to be written.
    pub(crate) fn to_write(object: &Bound<'_, PyAny>) -> PyResult<Numbers> {
        let numbers = Numbers::to_read(object)?;
        if numbers.0.readonly() {
            let kind = object.get_type().name()?;
            let cause = format!("this {kind} is read-only, and the update is written into it");
            return Err(wrong_value(object.py(), cause, "pass a buffer that may be written, such as a copy of it"));
        }
        Ok(numbers)
    }

    /// What is there.
    pub(crate) fn slice(&self) -> &[f32] {
        let (start, count) = (self.0.buf_ptr().cast::<f32>(), self.0.item_count());
        if count == 0 {
            return &[];
        }
        // SAFETY: the exporter keeps `count` floats at `start` (contiguous and aligned, which was checked when this was made) until
        // the buffer is released. That nobody writes to them meanwhile is asked of callers, as it is of whoever reads a file into a
        // buffer without the interpreter's lock.
        unsafe { std::slice::from_raw_parts(start, count) }
    }

    /// What is there, to be changed. Only for what [`Numbers::to_write`] has made.
    pub(crate) fn slice_mut(&mut self) -> &mut [f32] {
        assert!(!self.0.readonly(), "made to be read");
        let (start, count) = (self.0.buf_ptr().cast::<f32>(), self.0.item_count());
        if count == 0 {
            return &mut [];
        }
        // SAFETY: as above, and the exporter says that it may be written. That nobody else uses it meanwhile is asked of callers.
        unsafe { std::slice::from_raw_parts_mut(start, count) }
    }
}
