// SPDX-License-Identifier: GPL-2.0

#include "../../harness/case.c"
#include "../../harness/context.c"
#include "../../harness/oracle.c"
#include "../../harness/pages/pages.c"
#include "../../harness/pages/kvfree.c"
#include "../../harness/pages/load.c"
#include "../../harness/pages/memcg.c"
#include "../../harness/pages/probes.c"
