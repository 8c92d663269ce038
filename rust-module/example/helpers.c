// SPDX-License-Identifier: GPL-2.0

#include "../lib/nolocks/helpers.c"
#include "../lib/queue/helpers.c"
