//! Maps that lie in the agent's own memory, read without a system call.

use std::{
    marker::PhantomData,
    os::fd::AsFd,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering, fence},
};

use aya::maps::MapData;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::error::KernelError;

/// What is done with a mapped map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// An array map of plain words.
#[derive(Debug)]
pub(crate) struct Mapped<T> {
    base: NonNull<T>,
    len: usize,
    bytes: usize,
    access: Access,
    _values: PhantomData<T>,
}

// SAFETY: the memory is the kernel's, read and written by volatile words.
unsafe impl<T> Send for Mapped<T> {}

impl<T> Mapped<T> {
    /// Maps an array of `len` values for reading.
    #[cfg(feature = "cost")]
    pub(crate) fn new(map: &MapData, name: &'static str, len: usize) -> Result<Self, KernelError> {
        Self::with(Access::Read, map, name, len)
    }

    /// Maps an array of `len` values.  `T` must be made of u64 and u32 words
    /// alone, of a size that is a multiple of eight: the kernel's step.
    pub(crate) fn with(
        access: Access,
        map: &MapData,
        name: &'static str,
        len: usize,
    ) -> Result<Self, KernelError> {
        const { assert!(size_of::<T>().is_multiple_of(8)) };
        let bytes = (len * size_of::<T>()).next_multiple_of(rustix::param::page_size());
        let protection = match access {
            Access::Read => ProtFlags::READ,
            Access::Write => ProtFlags::READ | ProtFlags::WRITE,
        };
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                bytes,
                protection,
                MapFlags::SHARED,
                map.fd().as_fd(),
                0,
            )
        };
        let base = base.map_err(|errno| KernelError::File {
            operation: "mapping into memory",
            path: name.into(),
            source: errno.into(),
        })?;
        let base = NonNull::new(base.cast()).unwrap_or(NonNull::dangling());
        Ok(Self {
            base,
            len,
            bytes,
            access,
            _values: PhantomData,
        })
    }

    /// The words of the value at an index, from its `first` on, each read once; the
    /// kernel may be adding to them.
    pub(crate) fn words<W: Copy>(&self, index: usize, first: usize, words: &mut [W]) {
        let end = first * size_of::<W>() + size_of_val(words);
        assert!(index < self.len && end <= size_of::<T>());
        // SAFETY: within the mapping, as just asserted.
        let value = unsafe { self.base.add(index) }.cast::<W>();
        // SAFETY: as above.
        let from = unsafe { value.add(first) };
        for (i, word) in words.iter_mut().enumerate() {
            // SAFETY: as above.
            let place = unsafe { from.add(i) };
            // SAFETY: aligned words of plain data; volatile as they change.
            *word = unsafe { place.read_volatile() };
        }
    }

    /// One 64-bit word of the value at an index.
    pub(crate) fn word(&self, index: usize, word: usize) -> u64 {
        // SAFETY: an aligned word within the mapping; volatile as it changes.
        unsafe { self.place(index, word).read_volatile() }
    }

    /// The same, and no later load comes before it.
    pub(crate) fn acquire(&self, index: usize, word: usize) -> u64 {
        // SAFETY: an aligned word within the mapping, which outlives the loan; what
        // others do to it is atomic.
        let word = unsafe { AtomicU64::from_ptr(self.place(index, word)) };
        // A relaxed load, as the mapping may be read-only.
        let value = word.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        value
    }

    /// The value at an index, which this process alone writes for now.
    pub(crate) fn owned(&self, index: usize) -> *mut T {
        assert!(self.access == Access::Write);
        self.place(index, 0).cast()
    }

    /// Writes a word that this process alone writes.
    pub(crate) fn set_word(&self, index: usize, word: usize, value: u64) {
        assert!(self.access == Access::Write);
        // SAFETY: an aligned word within a mapping that can be written; volatile
        // as others read it.
        unsafe { self.place(index, word).write_volatile(value) };
    }

    fn place(&self, index: usize, word: usize) -> *mut u64 {
        assert!(index < self.len && word < size_of::<T>() / 8);
        // SAFETY: within the mapping, as just asserted.
        let value = unsafe { self.base.add(index) }.cast::<u64>();
        // SAFETY: as above.
        unsafe { value.add(word) }.as_ptr()
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is this one's and nothing borrows from it.
        let result = unsafe { munmap(self.base.as_ptr().cast(), self.bytes) };
        debug_assert!(result.is_ok(), "a mapping of our own can be unmapped");
    }
}
