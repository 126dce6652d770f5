/* What a job's cache makes of its plan: which predictions of which steps reuse earlier work. */
#pragma once

#include "coordinator/plan.h"

struct plan_steps {
    uint32_t first, count;
};
/* The steps of the high-noise or only transformer (`expert` 0), or of the low-noise one (1): they
 * are consecutive. */
struct plan_steps plan_expert_steps(const struct plan *plan, uint32_t expert);

/* Marks the steps that are known from the job alone: those of MagCache. */
void plan_skips(const struct job *job, struct plan *plan);
/* Marks an expert's steps by TeaCache: distance [count, count] as in skip.h. */
void plan_skips_by_times(const struct job *job, struct plan *plan, uint32_t expert,
                         const float *distance);

/* 0: prediction `which` of this step is computed. Else 1 + the step whose work it reuses. */
uint32_t plan_reuse(const struct plan *plan, uint32_t step, uint32_t which);
/* EasyCache's threshold of this step, which each window compares for itself; 0: the step is
 * computed in any case. */
double plan_threshold(const struct job *job, const struct plan *plan, uint32_t step);
/* Does the step use what its window's last one left on the worker that ran it? */
bool plan_is_sticky(const struct job *job, const struct plan *plan, uint32_t step);
