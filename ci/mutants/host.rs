// SPDX-License-Identifier: GPL-2.0
//! The models' tests of the queue, without their own bugs and around a source that has one: `make mutants`
//! copies this, the models and the source into a package of its own.

#[allow(unused, reason = "a bug may leave something unused")]
mod interleavings {
    const CAPACITY: usize = 2;
    const PREEMPTIONS: usize = 3;

    mod capacity {
        pub(super) use super::CAPACITY;
    }
    #[path = "shard.rs"]
    pub mod shard;
    include!("interleavings/scenes.rs");

    fn explore(scene: fn()) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(PREEMPTIONS);
        builder.check(scene);
    }

    macro_rules! scenes {
        ($($scene:ident)*) => {
            mod scenes {
                $(#[test]
                fn $scene() {
                    super::explore(super::$scene);
                })*
            }
        };
    }
    scenes! {
        reader_and_block
        reader_and_list
        pushes_and_drain
        barrier_and_drain
        barrier_and_later_list
        children_and_finish
        handlers_and_end
        try_and_push
    }
}

#[allow(unused, reason = "a bug may leave something unused")]
mod sequences {
    const CAPACITY: usize = 4;

    mod capacity {
        pub(super) use super::CAPACITY;
    }
    #[path = "shard.rs"]
    pub mod shard;
    include!("sequences/run.rs");

    mod families {
        include!("sequences/families.rs");
    }

    #[test]
    fn random() {
        check("").unwrap();
    }

    #[test]
    fn long_list() {
        check_long_list("").unwrap();
    }

    #[test]
    fn destructors() {
        families::check().unwrap();
    }
}
