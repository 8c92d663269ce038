// SPDX-License-Identifier: GPL-2.0

#include "../../harness/context.c"
#include "../../harness/oracle.c"
#include "../../lib/queue/helpers.c"
