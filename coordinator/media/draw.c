#include "coordinator/media/draw.h"

#include <math.h>
#include <stdlib.h>

enum { ELLIPSE_POINTS = 361 };

struct point {
    double x, y;
};

static void span(const struct canvas *canvas, int64_t y, int64_t x0, int64_t x1)
{
    const int64_t width = canvas->size.width;
    if (y < 0 || y >= canvas->size.height)
        return;
    x0 = x0 < 0 ? 0 : x0;
    x1 = x1 >= width ? width - 1 : x1;
    for (int64_t x = x0; x <= x1; x++)
        for (int c = 0; c < 3; c++)
            canvas->rgb[3 * (y * width + x) + c] = canvas->color[c];
}

void draw_disc(const struct canvas *canvas, int32_t cx, int32_t cy, int32_t radius)
{
    int32_t error = 0, dx = radius, dy = 0, plus = 1, minus = 2 * radius - 1;
    while (dx >= dy) {
        span(canvas, (int64_t)cy - dy, (int64_t)cx - dx, (int64_t)cx + dx);
        span(canvas, (int64_t)cy + dy, (int64_t)cx - dx, (int64_t)cx + dx);
        span(canvas, (int64_t)cy - dx, (int64_t)cx - dy, (int64_t)cx + dy);
        span(canvas, (int64_t)cy + dx, (int64_t)cx - dy, (int64_t)cx + dy);
        dy++;
        error += plus;
        plus += 2;
        if (error > 0) {
            error -= minus;
            dx--;
            minus -= 2;
        }
    }
}

/* Bresenham from left to right, as OpenCV's LineIterator. The ends lie within the bounds that
 * pose.c clamps to, so the walk is short. */
static void thin_line(const struct canvas *canvas, int32_t x0, int32_t y0, int32_t x1, int32_t y1)
{
    if (x1 < x0) {
        const int32_t x = x0, y = y0;
        x0 = x1, y0 = y1;
        x1 = x, y1 = y;
    }
    const int32_t dx = x1 - x0, dy = abs(y1 - y0), step = y1 < y0 ? -1 : 1;
    const bool steep = dy > dx;
    const int32_t along = steep ? dy : dx, across = steep ? dx : dy;
    int32_t error = along - 2 * across;
    for (int32_t i = 0; i <= along; i++) {
        span(canvas, y0, x0, x0);
        const bool turn = error < 0;
        error += (turn ? 2 * along : 0) - 2 * across;
        x0 += steep ? turn : 1;
        y0 += steep || turn ? step : 0;
    }
}

/* The same between fractional ends: steps of one pixel along the longer way. */
static void fine_line(const struct canvas *canvas, struct point a, struct point b)
{
    const bool steep = !(fabs(b.x - a.x) > fabs(b.y - a.y));
    const double way = steep ? b.y - a.y : b.x - a.x;
    span(canvas, (int64_t)floor(b.y + 0.5), (int64_t)floor(b.x + 0.5), (int64_t)floor(b.x + 0.5));
    if (way < 0) {
        const struct point p = a;
        a = b;
        b = p;
    }
    const int64_t count = (int64_t)fabs(way);
    const double slope = way == 0 ? 0
                         : steep  ? (b.x - a.x) / (b.y - a.y)
                                  : (b.y - a.y) / (b.x - a.x);
    for (int64_t i = 0; i <= count; i++) {
        const double x = a.x + 0.5 + (steep ? slope * (double)i : (double)i);
        const double y = a.y + 0.5 + (steep ? (double)i : slope * (double)i);
        span(canvas, (int64_t)floor(y), (int64_t)floor(x), (int64_t)floor(x));
    }
}

/* Rows between the outermost crossings of the edges, whose ends are moved to whole rows first. */
static void fill_convex(const struct canvas *canvas, const struct point *point, int count)
{
    double top = INFINITY, bottom = -INFINITY;
    for (int i = 0; i < count; i++) {
        top = fmin(top, floor(point[i].y + 0.5));
        bottom = fmax(bottom, floor(point[i].y + 0.5));
    }
    top = fmax(top, 0);
    bottom = fmin(bottom, canvas->size.height - 1.0);
    for (double y = top; y <= bottom; y++) {
        double left = INFINITY, right = -INFINITY;
        for (int i = 0; i < count; i++) {
            const struct point a = point[i], b = point[(i + 1) % count];
            const double ay = floor(a.y + 0.5), by = floor(b.y + 0.5);
            if (ay == by || y < fmin(ay, by) || y > fmax(ay, by))
                continue;
            const double x = a.x + (b.x - a.x) * (y - ay) / (by - ay);
            left = fmin(left, x);
            right = fmax(right, x);
        }
        if (left <= right)
            span(canvas, (int64_t)y, (int64_t)floor(left + 0.5), (int64_t)floor(right + 0.5));
    }
}

void draw_line(const struct canvas *canvas, int32_t x0, int32_t y0, int32_t x1, int32_t y1,
               int32_t thickness)
{
    if (thickness <= 1) {
        thin_line(canvas, x0, y0, x1, y1);
        return;
    }
    const double dx = x0 - x1, dy = y1 - y0, length = hypot(dx, dy);
    if (length > 0) {
        const double half = (thickness + (thickness & 1)) / 2.0 / length;
        const double ox = dy * half, oy = dx * half;
        const struct point box[4] = {
            {x0 + ox, y0 + oy}, {x0 - ox, y0 - oy}, {x1 - ox, y1 - oy}, {x1 + ox, y1 + oy}};
        fill_convex(canvas, box, 4);
        for (int i = 0; i < 4; i++)
            fine_line(canvas, box[i], box[(i + 1) % 4]);
    }
    draw_disc(canvas, x0, y0, (thickness + 1) / 2);
    draw_disc(canvas, x1, y1, (thickness + 1) / 2);
}

void draw_ellipse(const struct canvas *canvas, int32_t cx, int32_t cy, int32_t a, int32_t b,
                  int32_t degrees)
{
    struct point point[ELLIPSE_POINTS];
    int count = 0;
    const double turn = degrees * M_PI / 180, cosine = cos(turn), sine = sin(turn);
    for (int i = 0; i <= 360; i++) {
        const double x = a * cos(i * M_PI / 180), y = b * sin(i * M_PI / 180);
        const struct point p = {rint(cx + x * cosine - y * sine), rint(cy + x * sine + y * cosine)};
        if (count == 0 || p.x != point[count - 1].x || p.y != point[count - 1].y)
            point[count++] = p;
    }
    fill_convex(canvas, point, count);
    for (int i = 0; i < count; i++) {
        const struct point p = point[i], q = point[(i + 1) % count];
        thin_line(canvas, (int32_t)p.x, (int32_t)p.y, (int32_t)q.x, (int32_t)q.y);
    }
}
