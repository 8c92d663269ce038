# SPDX-License-Identifier: GPL-2.0
#
# A thin front: ci/ does the work. Kbuild (make -C KDIR M=...) reads the file Kbuild, never this one.
#
#   make stress                       the main lane under stress
#   make stress LANE=all SECONDS=60   every lane, longer

.DEFAULT_GOAL := help
.PHONY: help setup stress soak test check mutants series-check sparse bench torture apply unapply rebase refresh build modules shell gdb decode rust-analyzer perf-kmem repro judge results clean

quote = '$(subst ','\'',$1)'
given = $(if $($1),--$2=$(call quote,$($1)))
# Only from the command line: a shell has a SECONDS of its own, and may have exported it.
typed = $(if $(filter command%,$(origin $1)),--$2=$(call quote,$($1)))
at = $(call given,KDIR,kdir) $(call given,LANE,lane)
params = $(call typed,SECONDS,seconds) $(call typed,THREADS,threads) $(call typed,SEED,seed) \
	$(call typed,PAGES,pages) $(call typed,CASE,case) $(call typed,REPEAT,repeat)
objects = $(call typed,OBJECTS,objects)
on_top = $(call typed,CONFIG,config) $(call typed,BOOTARGS,bootargs)
# Whoever types LANE=x means it: a target that would ignore it says so instead, and so does every one
# of KDIR=$x where x is not set.
everywhere = YES CI NOLOCKS_CACHE CARGO_TARGET_DIR TMPDIR HOME SHELL MAKEOVERRIDES -%
takes = $(foreach v,$(filter-out $(everywhere),$(.VARIABLES)),$(if $(filter command%,$(origin $v)),$(if \
	$(filter $v,$1),$(if $($v),,$(error $v= is empty)),$(error make $@ takes no $v=: it would change nothing))))
# Before the runner is built, which takes minutes.
needs = $(if $($1),,$(error make $@ needs $1=: see make help))
# A word that is not understood must not mean no.
is_yes = $(if $(filter-out 1 y yes,$($1)),$(error $1=$($1): it takes 1, y or yes))$($1)
run = @sh scripts/bootstrap.sh --checkout=$(call quote,$(CURDIR)) $(if $(call is_yes,YES),--yes) $(call typed,JOBS,jobs)

help:
	@echo 'make setup         check the tools, install what is missing (asks; YES=1 or CI=true means yes), fetch a newer 7.3.x'
	@echo 'make stress        build kernel and module, boot, run the stress module under lockdep'
	@echo 'make soak          10 million objects through the bulk queue (OBJECTS= for another number)'
	@echo 'make test          unit tests, models, the form of the series, the four main lanes with their controls'
	@echo 'make check         everything that needs no kernel build (seconds, once tools and tree are there)'
	@echo 'make mutants       bugs of one place in copies of module and series: which does no test find?'
	@echo 'make series-check  build and boot every prefix of the series'
	@echo 'make sparse        sparse on what the series touches in mm/, with a seeded error as control'
	@echo 'make bench         instructions of a page and of queueing an object, with and without the series (LANE=native: in time)'
	@echo 'make torture       slub_kunit, test_vmalloc, rcutorture, rcuscale, a BPF program and alloc_pages_nolock() under load, with and without the series'
	@echo 'make apply KDIR=   put the series on your 7.3 tree (git am, or patch where there is no git)'
	@echo 'make unapply KDIR= take it off again'
	@echo 'make rebase KDIR=  put it on a newer 7.3.x that it no longer fits as it is: git am --3way, and what to do about a conflict'
	@echo 'make refresh KDIR= patches/ from the commits of your tree, and their form (BASE= the commit below them, if it has to be told)'
	@echo 'make build         build the kernel of a lane'
	@echo 'make modules       build the modules; with KDIR= against your own built tree'
	@echo 'make shell         a prompt in the booted guest, modules in /mnt/modules'
	@echo 'make gdb           a guest that waits for gdb, from a kernel with debug info, and what to type'
	@echo 'make rust-analyzer  rust-project.json for your editor, of the modules against a lane'"'"'s kernel'
	@echo 'make perf-kmem     trace the guest; perf kmem must print NL'
	@echo 'make repro RUN=    repeat a run with its images, modules and seed'
	@echo 'make decode RUN=   the stack traces of a run by file and line, in console.decoded.txt (KDIR= if it was of your tree)'
	@echo 'make judge RUN=    judge a run again without a boot, by its own rules (TODAYS=1: by those of this checkout)'
	@echo 'make results RUN=  docs/results.md and its picture, from a run'
	@echo 'make clean         remove builds and runs from the cache'
	@echo
	@echo 'KDIR=  your kernel tree; only apply, unapply and rebase change it, modules reads it, all else works on a copy'
	@echo 'LANE=  $(sort $(patsubst ci/lanes/%.config,%,$(wildcard ci/lanes/*.config))), or all; all of make test are the main four'
	@echo 'CASE=  only these cases: pages/nmi, queue/locks, kunit/slots_*; several with commas; REPEAT=N  until it is red, at most N times'
	@echo 'SECONDS= THREADS= SEED= PAGES=  the stress module'"'"'s parameters; OBJECTS=  the one of the queue'"'"'s'
	@echo 'CONFIG=  a file of Kconfig options, BOOTARGS=  words for the kernel command line; for one stress, shell or gdb'
	@echo 'MUTANTS=  models, kernel, series, or names of ci/mutants/mutants.toml, with commas between'
	@echo 'JOBS=  guests beside each other; otherwise as many as cores and memory allow, 4 cores each'
	@echo 'NOLOCKS_CACHE=  where everything is built (default ~/.cache/nolocks)'

setup check series-check sparse torture clean:
	$(call takes,)
	$(run) $@

stress:
	$(call takes,KDIR LANE SECONDS THREADS SEED CASE REPEAT PAGES OBJECTS CONFIG BOOTARGS JOBS)
	$(run) $@ $(at) $(params) $(objects) $(on_top)

soak:
	$(call takes,KDIR LANE OBJECTS JOBS)
	$(run) $@ $(at) $(objects)

bench:
	$(call takes,LANE)
	$(run) $@ $(call given,LANE,lane)

mutants:
	$(call takes,LANE MUTANTS)
	$(run) $@ $(call given,LANE,lane) $(call given,MUTANTS,mutants)

shell gdb:
	$(call takes,KDIR LANE CONFIG BOOTARGS)
	$(run) $@ $(at) $(on_top)

test:
	$(call takes,KDIR LANE JOBS)
	$(run) $@ $(at)

build modules perf-kmem rust-analyzer:
	$(call takes,KDIR LANE)
	$(run) $@ $(at)

refresh:
	$(call takes,KDIR BASE)$(call needs,KDIR)
	$(run) $@ $(call given,KDIR,kdir) $(call typed,BASE,base)

apply unapply rebase:
	$(call takes,KDIR)$(call needs,KDIR)
	$(run) $@ $(call given,KDIR,kdir)

decode:
	$(call takes,RUN KDIR)$(call needs,RUN)
	$(run) $@ $(call given,RUN,run) $(call given,KDIR,kdir)

repro results:
	$(call takes,RUN)$(call needs,RUN)
	$(run) $@ $(call given,RUN,run)

judge:
	$(call takes,RUN TODAYS)$(call needs,RUN)
	$(run) $@ $(call given,RUN,run) $(if $(call is_yes,TODAYS),--todays)
