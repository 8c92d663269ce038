// SPDX-License-Identifier: GPL-2.0

#include "../stress/context.c"
#include "../queue/helpers.c"
