#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Runs in the guest, whose /mnt is the run folder: carries out one boot's plan and leaves what it saw
# there. POSIX sh and no runner binary, because the guest may be of another architecture.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH
boot=/mnt/$1
out=$boot/out

# Through the kernel's log, where a line cannot be torn apart by one of the kernel's own.
say() { echo "NOLOCKS: $*" >/dev/kmsg; }

# Pages are charged to the memory cgroup of a task, but not to the root's.
cgroup=/sys/fs/cgroup
[ -e $cgroup/cgroup.procs ] || mount -t cgroup2 cgroup2 $cgroup
echo +memory >$cgroup/cgroup.subtree_control && mkdir $cgroup/nolocks && echo $$ >$cgroup/nolocks/cgroup.procs

leaks=/sys/kernel/debug/kmemleak
# A scan reports what is five seconds old and has not changed since the one before. Without a copy the
# runner knows that kmemleak could not be asked.
scan_leaks() {
	[ ! -e $leaks ] || { echo scan >$leaks && sleep 6 && echo scan >$leaks && cat $leaks >>"$out/kmemleak"; }
}

# KUnit's results of each suite; a module's are there as long as it is loaded.
suites=$(mktemp -d)
save_kunit() {
	for suite in /sys/kernel/debug/kunit/*; do
		[ ! -e "$suite/results" ] || cat "$suite/results" >"$suites/${suite##*/}"
	done
}

loads=
say "guest up"
# A lane that did not get what it asked for proves nothing: the guest then ends too early.
sh -e "$boot/setup" || {
	say "the lane's setup failed"
	exit 1
}
# 3, because a command in the loop must not eat the plan.
while read -r verb name file params <&3; do
	# A boot may have nothing to do but to boot.
	[ -n "$verb" ] || continue
	say "case $name begin"
	case $verb in
	module)
		# Words on purpose: a module takes each parameter as one.
		# shellcheck disable=SC2086
		insmod "/mnt/modules/$file" $params
		rc=$?
		if [ $rc = 0 ]; then
			save_kunit
			# What a module holds is no leak.
			scan_leaks
			rmmod "${file%.ko}" || rc=$?
		fi
		;;
	hold | wait)
		# For so many seconds, or until the kernel has said a word once more: the first parameter.
		first=${params%% *}
		[ "$verb" = hold ] || said=$(dmesg | grep -c "$first")
		# shellcheck disable=SC2086
		insmod "/mnt/modules/$file" ${params#"$first"}
		rc=$?
		if [ $rc = 0 ]; then
			case $verb in
			hold) sleep "$first" ;;
			wait) until [ "$(dmesg | grep -c "$first")" -gt "$said" ]; do sleep 1; done ;;
			esac
			rmmod "${file%.ko}" || rc=$?
		fi
		;;
	perf)
		# Only the flag's own allocations (bit 9 of gfp_flags): perf kmem gives up on a page that was
		# split before it was freed, as others' pages may be. Recorded to tmpfs, because perf record
		# fails on the run folder's 9p.
		# shellcheck disable=SC2086
		"$PERF" record --quiet --all-cpus --event kmem:mm_page_alloc --filter 'gfp_flags & 0x200' \
			--output /tmp/perf.data -- insmod "/mnt/modules/$file" $params 2>"$out/perf-record.txt" &&
			cp /tmp/perf.data "$out" &&
			"$PERF" script --input /tmp/perf.data >"$out/perf-script.txt" &&
			"$PERF" kmem --input /tmp/perf.data --page --alloc --caller --raw-ip --line 20 \
				stat >"$out/perf-kmem.txt" 2>&1
		rc=$?
		;;
	load)
		# For all steps that follow, a process for each CPU: what it does is the name.
		rc=0
		for nth in $(seq "$(nproc)"); do
			case $name in
			busy) while :; do :; done & ;;
			forks) while :; do (:); done & ;;
			# Of a part of its own of a device that is larger than memory.
			readers) dd if=/dev/nullb0 of=/dev/null bs=1M skip=$((nth * 8192)) 2>/dev/null & ;;
			*) rc=1 ;;
			esac
			loads="$loads $!"
		done
		[ "$name" != readers ] || until grep -q "^pgsteal_direct [1-9]" /proc/vmstat; do sleep 1; done
		;;
	bpf)
		# Attached for so many seconds; then what the programs have counted.
		mount -t bpf bpf /sys/fs/bpf &&
			"$BPFTOOL" prog loadall "/mnt/modules/$file" /sys/fs/bpf/programs pinmaps /sys/fs/bpf/maps autoattach &&
			sleep "$params" && rm -r /sys/fs/bpf/programs &&
			counted=$("$BPFTOOL" map dump pinned /sys/fs/bpf/maps/outcomes)
		rc=$?
		# One line of many, on purpose.
		# shellcheck disable=SC2086
		[ $rc != 0 ] || say "counted "$counted
		umount /sys/fs/bpf
		;;
	*)
		say "unknown verb $verb"
		rc=1
		;;
	esac
	say "case $name rc=$rc"
done 3<"$boot/plan"
# Words on purpose.
# shellcheck disable=SC2086
[ -z "$loads" ] || kill $loads

scan_leaks
cat /proc/lockdep_stats >"$out/lockdep_stats" 2>/dev/null
cat /proc/vmstat >"$out/vmstat"
cat /proc/cmdline >"$out/cmdline"
cat /proc/cpuinfo >"$out/cpuinfo"
save_kunit
cat "$suites"/* >"$out/kunit.txt" 2>/dev/null
sync
say "guest done"
