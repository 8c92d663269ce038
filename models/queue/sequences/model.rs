// SPDX-License-Identifier: GPL-2.0
// What the queue must do, a part of run.rs.

/// Objects that wait for a grace period.
type Batch = (usize, Vec<usize>);

/// What the queue must do, said another way.
#[derive(Default)]
struct Model {
    open: [Vec<usize>; 2],
    listed: Vec<usize>,
    sealed: Vec<Batch>,
    blocks: Vec<Batch>,
    /// By the grace period that they wait for.
    lists: Vec<Batch>,
    /// No longer waited for: of blocks, and of lists.
    ready: (Vec<Vec<usize>>, Vec<usize>),
    spares: usize,
    since: usize,
    hurried: bool,
    starved: bool,
    dry: Option<usize>,
    wake: Option<Wake>,
    kicks: usize,
    polls: usize,
    adopted: BTreeSet<usize>,
    freed: BTreeSet<usize>,
    twice: usize,
    pushed: usize,
}

impl Model {
    fn has_open(&self) -> bool {
        self.open.iter().any(|open| !open.is_empty()) || !self.listed.is_empty()
    }

    fn wake(&mut self, wake: Wake) {
        if self.wake.unwrap_or(Wake::Idle) < wake {
            self.wake = Some(wake);
            self.kicks += 1;
        }
    }

    fn push(&mut self, world: &World, nth: usize, head: bool, tries: usize) -> Pushed {
        let kind = usize::from(is_single(nth));
        // One try for a block that is there, and another for one that had to be allocated.
        let has_room = !self.open[kind].is_empty() || self.spares > 0;
        if tries < if has_room { 1 } else { 2 } {
            return Pushed::Refused;
        }
        let had_open = self.has_open();
        let block = if !self.open[kind].is_empty() {
            true
        } else if self.spares > 0 {
            self.spares -= 1;
            true
        } else {
            world.memory.get()
        };

        if !had_open && (block || head) {
            self.since = world.now.get();
            self.hurried = false;
        }
        if block {
            self.open[kind].push(nth);
            self.wake(Wake::Later);
            if self.open[kind].len() == CAPACITY {
                self.sealed
                    .push((world.snap(), mem::take(&mut self.open[kind])));
                self.starved |= self.spares == 0;
                self.wake(Wake::Now);
            }
        } else {
            self.starved = true;
            if head {
                self.wake(Wake::Later);
                self.listed.push(nth);
            }
            let is_full = head && self.listed.len() == CAPACITY;
            if is_full
                || self
                    .dry
                    .is_none_or(|since| world.now.get() - since >= PAUSE)
            {
                self.wake(Wake::Now);
            }
            if !head {
                return Pushed::Refused;
            }
        }
        self.pushed += 1;
        Pushed::Queued
    }

    fn drain(&mut self, world: &World, all: bool) -> Rest {
        let gp = world.gp_seq.get();
        let is_due = all || world.now.get().wrapping_sub(self.since) >= PERIOD;

        // One look at each that is ready, and one at the first that is not.
        let over = self
            .lists
            .iter()
            .take_while(|(snap, _)| gp >= *snap)
            .count();
        self.polls += self.lists.len().min(over + 1);
        for (_, objects) in self.lists.drain(..over) {
            self.ready.1.extend(objects);
        }
        if is_due {
            for open in &mut self.open {
                if !open.is_empty() {
                    self.sealed.push((world.snap(), mem::take(open)));
                }
            }
        }
        if is_due && !self.listed.is_empty() || self.listed.len() >= CAPACITY {
            let objects = self.adopt(self.listed.clone());
            self.listed.clear();
            match self.lists.last_mut() {
                Some((snap, list)) if *snap == world.snap() => list.extend(objects),
                _ => self.lists.push((world.snap(), objects)),
            }
        }
        for (snap, objects) in mem::take(&mut self.sealed) {
            let objects = self.adopt(objects);
            self.blocks.push((snap, objects));
        }

        let over = self
            .blocks
            .iter()
            .take_while(|(snap, _)| gp >= *snap)
            .count();
        self.polls += self.blocks.len().min(over + 1);
        for (_, objects) in self.blocks.drain(..over) {
            self.ready.0.push(objects);
        }
        if mem::take(&mut self.starved) {
            let found = world.memory.get();
            self.spares = if found { SPARES } else { self.spares };
            self.dry = (!found).then(|| world.now.get());
        }
        self.wake = self.has_open().then_some(Wake::Later);
        Rest {
            ready: !self.ready.0.is_empty() || !self.ready.1.is_empty(),
            waiting: !self.blocks.is_empty() || !self.lists.is_empty(),
            listed: !self.lists.is_empty(),
            open: self
                .has_open()
                .then(|| PERIOD - world.now.get().wrapping_sub(self.since)),
        }
    }

    fn reclaim(&mut self) {
        let (blocks, listed) = mem::take(&mut self.ready);

        self.spares = SPARES.min(self.spares + blocks.len());
        self.freed.extend(blocks.into_iter().flatten());
        self.freed.extend(listed);
    }

    fn hurry(&mut self, world: &World) -> usize {
        let open = match self.hurried {
            true => 0,
            false => self.open.iter().flatten().count() + self.listed.len(),
        };
        if open > 0 {
            self.hurried = true;
            self.since = world.now.get().wrapping_sub(PERIOD);
            self.wake(Wake::Now);
        }
        open
    }

    /// What is said without a look at each open block stands for a full one.
    fn shrinkable(&self) -> usize {
        let blocks = self.open.iter().filter(|open| !open.is_empty()).count();
        let open = match self.hurried {
            true => 0,
            false => blocks * CAPACITY + self.listed.len(),
        };
        open + self.spares
    }

    fn adopt(&mut self, mut objects: Vec<usize>) -> Vec<usize> {
        let before = objects.len();
        objects.retain(|nth| self.adopted.insert(*nth));
        self.twice += before - objects.len();
        objects
    }

    fn blocks_in_use(&self) -> usize {
        self.open.iter().filter(|open| !open.is_empty()).count()
            + self.sealed.len()
            + self.blocks.len()
            + self.ready.0.len()
            + self.spares
    }
}
