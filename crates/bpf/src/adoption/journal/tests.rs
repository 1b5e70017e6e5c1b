use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
};

use monitor_common::counters::WORDS;

use super::*;

const ENTRIES: usize = 3;

/// Memory that outlives a writer which dies after so many stores.
#[derive(Clone, Default)]
struct Memory {
    words: Rc<RefCell<Vec<u64>>>,
    counters: Rc<RefCell<Vec<u64>>>,
    stores_left: Rc<Cell<u64>>,
}

impl Memory {
    fn new() -> Self {
        let memory = Self::default();
        memory
            .words
            .borrow_mut()
            .resize((1 + ENTRIES) * ENTRY_WORDS, 0);
        memory.counters.borrow_mut().resize(2 * WORDS, 0);
        memory.stores_left.set(u64::MAX);
        memory
    }

    fn spend(&self) {
        let left = self.stores_left.get().checked_sub(1);
        self.stores_left.set(left.expect("killed"));
    }

    fn journal(&self) -> Journal<Self> {
        Journal::recover(self.clone(), ENTRIES, self)
    }

    /// All that a report would show of slot 1.
    fn totals(&self) -> Vec<u64> {
        let count = |word: usize| self.counters.borrow()[WORDS + word];
        let mut totals = COUNTED.map(count).to_vec();
        for entry in peek(self, ENTRIES) {
            for (total, figure) in totals.iter_mut().zip(entry.pending()) {
                *total += figure;
            }
        }
        let ends = [Ended::Closed(Ending::ResetSent), Ended::Failed];
        totals.extend(ends.map(|ended| count(end_word(ended).unwrap())));
        totals
    }
}

impl Words for Memory {
    fn get(&self, place: usize) -> u64 {
        self.words.borrow()[place]
    }

    fn set(&mut self, place: usize, word: u64) {
        self.spend();
        self.words.borrow_mut()[place] = word;
    }
}

impl OwnCounters for Memory {
    fn get(&self, slot: u32, word: usize) -> u64 {
        self.counters.borrow()[slot as usize * WORDS + word]
    }

    fn set(&self, slot: u32, word: usize, count: u64) {
        self.spend();
        self.counters.borrow_mut()[slot as usize * WORDS + word] = count;
    }
}

const ENTRY: Entry = Entry {
    cookie: 77,
    slot: 1,
    role: 2,
    flags: Entry::ESTABLISHED,
    base: [10, 20, 3, 4, 0],
    last: [10, 20, 3, 4, 0],
};

#[test]
fn what_was_carried_before_does_not_count_and_what_came_since_counts_once() {
    let memory = Memory::new();
    let mut journal = memory.journal();
    assert!(journal.add(&ENTRY, &memory));
    assert_eq!(memory.totals(), [0, 0, 0, 0, 0, 0, 1, 0, 0]);
    journal.observe(77, &[15, 27, 4, 6, 1], ENTRY.flags);
    assert_eq!(memory.totals(), [5, 7, 1, 2, 1, 0, 1, 0, 0]);
    // Closed, and still held by its process.
    journal.end(77, Ended::Closed(Ending::ResetSent), 0, true, &memory);
    assert_eq!(memory.totals(), [5, 7, 1, 2, 1, 0, 1, 1, 0]);
    let flags = journal.get(77).unwrap().flags;
    assert_eq!(flags, Entry::ESTABLISHED | Entry::GONE);
    journal.observe(77, &[16, 27, 5, 6, 1], flags);
    journal.end(77, Ended::Counted, 9, false, &memory);
    assert_eq!(memory.totals(), [6, 7, 2, 2, 1, 9, 1, 1, 0]);
    assert!(journal.is_empty() && journal.get(77).is_none());
}

#[test]
fn there_is_room_for_so_many_and_no_more() {
    let memory = Memory::new();
    let mut journal = memory.journal();
    let entry = |cookie| Entry { cookie, ..ENTRY };
    for cookie in 1..=3 {
        assert!(journal.add(&entry(cookie), &memory));
    }
    assert!(!journal.add(&entry(4), &memory));
    journal.end(2, Ended::Failed, 0, false, &memory);
    assert!(journal.add(&entry(4), &memory));
    assert_eq!(memory.totals()[ADOPTED..], [4, 0, 1]);
    let mut cookies: Vec<_> = memory.journal().entries().map(|e| e.cookie).collect();
    cookies.sort_unstable();
    assert_eq!(cookies, [1, 3, 4], "the next agent finds the same");
}

/// Wherever the agent is killed, the next one ends up with the same totals.
#[test]
fn an_agent_that_is_killed_at_any_store_counts_nothing_twice() {
    for stores in 0.. {
        let memory = Memory::new();
        memory.stores_left.set(stores);
        let steps = || {
            // Each step looks at what is there, as an agent does that begins.
            let mut journal = memory.journal();
            if journal.get(77).is_none() && memory.totals()[ADOPTED] == 0 {
                assert!(journal.add(&ENTRY, &memory));
            }
            if journal.get(77).is_some_and(|e| !e.has(Entry::GONE)) {
                journal.observe(77, &[15, 27, 4, 6, 1], ENTRY.flags);
                journal.end(77, Ended::Closed(Ending::ResetSent), 0, true, &memory);
            }
            if let Some(entry) = journal.get(77) {
                journal.observe(77, &[16, 27, 5, 6, 1], entry.flags);
                journal.end(77, Ended::Counted, 9, false, &memory);
            }
        };
        let killed = catch_unwind(AssertUnwindSafe(steps)).is_err();
        memory.stores_left.set(u64::MAX);
        steps();
        assert_eq!(
            memory.totals(),
            [6, 7, 2, 2, 1, 9, 1, 1, 0],
            "killed at {stores}"
        );
        if !killed {
            assert!(stores > 60, "the kills were spread over all of it");
            return;
        }
    }
}
