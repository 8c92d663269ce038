// SPDX-License-Identifier: GPL-2.0
/*
 * Task-local storage, created anew at each tick, in a hard interrupt, where
 * kmalloc_nolock() is all that there is. What was created at the tick before is
 * deleted first.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u64);
} storage SEC(".maps");

/* How many were created, and how many could not be. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} outcomes SEC(".maps");

/* Of the timer's interrupt, on PREEMPT_RT too. */
SEC("kprobe/update_process_times")
int create_storage(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u32 failed;
	__u64 *count;

	bpf_task_storage_delete(&storage, task);
	failed = !bpf_task_storage_get(&storage, task, 0,
				       BPF_LOCAL_STORAGE_GET_F_CREATE);
	count = bpf_map_lookup_elem(&outcomes, &failed);
	if (count)
		__sync_fetch_and_add(count, 1);
	return 0;
}

char _license[] SEC("license") = "GPL";
