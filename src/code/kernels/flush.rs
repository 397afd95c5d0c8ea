//! Numbers below the normal range are 0 while shards are decoded: a liar's choice of numbers must not slow the daemon down, and
//! on some processors arithmetic that underflows takes a hundred times as long.

/// Runs `work` with subnormal inputs read as 0 and subnormal results written as 0; as before afterwards.
///
/// Only kernels and the loops around them run inside: whatever the compiler knows about numbers it knows about normal ones, and
/// for the others this module promises nothing but 0 or the exact value.
#[inline]
pub(in crate::code) fn flushed<T>(work: impl FnOnce() -> T) -> T {
    let _before = control::Flushing::begin();
    work()
}

#[cfg(target_arch = "x86_64")]
mod control {
    use std::arch::asm;

    /// Flush to zero, and denormals are zero.
    const FLUSH: u32 = 0x8040;

    /// Restores the control register when it is dropped.
    pub struct Flushing(u32);

    fn read() -> u32 {
        let mut now = 0u32;
        // SAFETY: writes four bytes.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut now, options(nostack, preserves_flags)) };
        now
    }

    fn write(value: u32) {
        // SAFETY: reads four bytes, which are what was read before but for the two bits.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack, preserves_flags)) };
    }

    impl Flushing {
        pub fn begin() -> Flushing {
            let before = read();
            write(before | FLUSH);
            Flushing(before)
        }
    }

    impl Drop for Flushing {
        fn drop(&mut self) {
            write(self.0);
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod control {
    use std::arch::asm;

    /// Flush to zero.
    const FLUSH: u64 = 1 << 24;

    /// Restores the control register when it is dropped.
    pub struct Flushing(u64);

    impl Flushing {
        pub fn begin() -> Flushing {
            let before: u64;
            // SAFETY: reads the control register of this thread.
            unsafe { asm!("mrs {}, fpcr", out(reg) before, options(nomem, nostack, preserves_flags)) };
            // SAFETY: sets one bit that changes subnormal numbers only.
            unsafe { asm!("msr fpcr, {}", in(reg) before | FLUSH, options(nostack, preserves_flags)) };
            Flushing(before)
        }
    }

    impl Drop for Flushing {
        fn drop(&mut self) {
            // SAFETY: writes what was read before.
            unsafe { asm!("msr fpcr, {}", in(reg) self.0, options(nostack, preserves_flags)) };
        }
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod control {
    /// This processor is left as it is.
    pub struct Flushing;

    impl Flushing {
        pub fn begin() -> Flushing {
            Flushing
        }
    }
}
