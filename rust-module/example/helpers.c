// SPDX-License-Identifier: GPL-2.0

#include "../nolocks/helpers.c"
#include "../queue/helpers.c"
