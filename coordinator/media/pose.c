#include "coordinator/media/pose.h"

#include "common/file.h"
#include "coordinator/media/draw.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BODY_POINTS = 20, LIMBS = 19, HAND_EDGES = 20, HAND_POINTS = 21 };
enum { FACE_FIRST = 23, FACE_END = 91, LEFT_HAND = 91, RIGHT_HAND = 112 };
enum { FILE_BYTES_MAX = 512 << 20, FRAMES_MAX = 1 << 17, SIDE_MAX = 16384 };
static const float visible = 0.5f;

/* -- files ------------------------------------------------------------------------------------- */

static lt_status parse_frame(const json_t *frame, const char *origin, uint32_t index,
                             struct pose *pose, struct lt_error *error)
{
    if (!json_is_array(frame) || json_array_size(frame) != 3 * POSE_POINTS)
        return lt_fail(error, LT_BAD_INPUT, "%s: /frames/%u: expected %d numbers, found %zu",
                       origin, index, 3 * POSE_POINTS, json_array_size(frame));
    for (size_t i = 0; i < 3 * POSE_POINTS; i++) {
        const json_t *const number = json_array_get(frame, i);
        const double value = json_number_value(number);
        if (!json_is_number(number) || !(fabs(value) <= 1e6))
            return lt_fail(error, LT_BAD_INPUT, "%s: /frames/%u/%zu: expected a number of pixels",
                           origin, index, i);
        float *const to = i % 3 == 0 ? pose->x : i % 3 == 1 ? pose->y : pose->score;
        to[i / 3] = (float)value;
    }
    return LT_OK;
}

static lt_status parse_track(const json_t *root, const char *origin, struct pose_track *track,
                             struct lt_error *error)
{
    const json_int_t width = json_integer_value(json_object_get(root, "width"));
    const json_int_t height = json_integer_value(json_object_get(root, "height"));
    const json_t *const frames = json_object_get(root, "frames");
    const size_t count = json_array_size(frames);
    if (width < 1 || width > SIDE_MAX || height < 1 || height > SIDE_MAX)
        return lt_fail(error, LT_BAD_INPUT,
                       "%s: /width and /height: expected whole numbers from 1 to %d", origin,
                       SIDE_MAX);
    if (count < 1 || count > FRAMES_MAX)
        return lt_fail(error, LT_BAD_INPUT, "%s: /frames: expected a list of 1 to %d, found %zu",
                       origin, FRAMES_MAX, count);
    track->size = (struct frame_size){(uint32_t)width, (uint32_t)height};
    track->pose = malloc(count * sizeof *track->pose);
    if (!track->pose)
        return lt_fail(error, LT_NO_MEMORY, "%s: no memory for %zu poses", origin, count);
    for (; track->count < count; track->count++)
        LT_TRY(parse_frame(json_array_get(frames, track->count), origin, track->count,
                           &track->pose[track->count], error));
    return LT_OK;
}

lt_status pose_track_parse(const char *text, size_t bytes, const char *origin,
                           struct pose_track *track_out, struct lt_error *error)
{
    json_error_t where;
    struct pose_track track = {0};
    json_t *const root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &where);
    if (!root)
        return lt_fail(error, LT_BAD_INPUT, "%s: line %d: %s", origin, where.line, where.text);
    const lt_status status = parse_track(root, origin, &track, error);
    json_decref(root);
    if (status != LT_OK)
        pose_track_free(&track);
    else
        *track_out = track;
    return status;
}

lt_status pose_track_read(const char *path, struct pose_track *track_out, struct lt_error *error)
{
    void *text;
    size_t bytes;
    LT_TRY(lt_file_read(path, FILE_BYTES_MAX, &text, &bytes, error));
    const lt_status status = pose_track_parse(text, bytes, path, track_out, error);
    free(text);
    return status;
}

void pose_track_free(struct pose_track *track)
{
    free(track->pose);
    *track = (struct pose_track){0};
}

/* -- drawing ----------------------------------------------------------------------------------- */

/* Body point i is the mean of these two of the 133: nose, neck, right arm, left arm, right leg,
 * left leg, eyes, ears, toes. */
static const uint8_t body_of[BODY_POINTS][2] = {
    {0, 0},   {6, 5},   {6, 6},   {8, 8},   {10, 10}, {5, 5}, {7, 7}, {9, 9}, {12, 12}, {14, 14},
    {16, 16}, {11, 11}, {13, 13}, {15, 15}, {2, 2},   {1, 1}, {4, 4}, {3, 3}, {17, 18}, {20, 21}};

static const struct {
    uint8_t from, to; /* body points, from 1 as the original counts */
    uint8_t color[3];
} limbs[LIMBS] = {{2, 3, {255, 0, 0}},    {2, 6, {255, 85, 0}},    {3, 4, {255, 170, 0}},
                  {4, 5, {255, 255, 0}},  {6, 7, {170, 255, 0}},   {7, 8, {85, 255, 0}},
                  {2, 9, {0, 255, 0}},    {9, 10, {0, 255, 85}},   {10, 11, {0, 255, 170}},
                  {2, 12, {0, 255, 255}}, {12, 13, {0, 170, 255}}, {13, 14, {0, 85, 255}},
                  {2, 1, {0, 0, 255}},    {1, 15, {85, 0, 255}},   {15, 17, {170, 0, 255}},
                  {1, 16, {255, 0, 255}}, {16, 18, {255, 0, 170}}, {14, 19, {255, 0, 85}},
                  {11, 20, {200, 200, 0}}};
static const uint8_t last_joint[3] = {100, 100, 0};

struct spot {
    double x, y;
    float score;
};

static struct canvas with_color(struct canvas canvas, const uint8_t color[3], double factor)
{
    for (int c = 0; c < 3; c++)
        canvas.color[c] = (uint8_t)(color[c] * factor);
    return canvas;
}

static void draw_limb(const struct canvas *canvas, struct spot a, struct spot b, int32_t stick)
{
    const double length = hypot(a.x - b.x, a.y - b.y);
    const double degrees = atan2(a.y - b.y, a.x - b.x) * (180 / M_PI);
    draw_ellipse(canvas, (int32_t)((a.x + b.x) / 2), (int32_t)((a.y + b.y) / 2),
                 (int32_t)(length / 2), stick, (int32_t)degrees);
}

static void draw_body(const struct canvas *canvas, const struct spot *spot, int32_t stick)
{
    struct spot body[BODY_POINTS];
    for (int i = 0; i < BODY_POINTS; i++) {
        const struct spot a = spot[body_of[i][0]], b = spot[body_of[i][1]];
        body[i] = (struct spot){(a.x + b.x) / 2, (a.y + b.y) / 2, (a.score + b.score) / 2};
    }
    for (int i = 0; i < LIMBS; i++) {
        const struct spot a = body[limbs[i].from - 1], b = body[limbs[i].to - 1];
        const struct canvas colored = with_color(*canvas, limbs[i].color, 0.6);
        if (a.score >= visible && b.score >= visible)
            draw_limb(&colored, a, b, stick);
    }
    for (int i = 0; i < BODY_POINTS; i++) {
        const uint8_t *const color = i < 18    ? limbs[i].color
                                     : i == 18 ? limbs[18].color
                                               : last_joint;
        const struct canvas colored = with_color(*canvas, color, 1);
        if (body[i].score >= visible)
            draw_disc(&colored, (int32_t)body[i].x, (int32_t)body[i].y, stick);
    }
}

/* HSV (hue, 1, 1) of edge e of 20. */
static void rainbow(int e, uint8_t color[3])
{
    const double hue = e / (double)HAND_EDGES * 6, part = hue - floor(hue);
    const double rise = (1 - (1 - part)) * 255, fall = (1 - part) * 255;
    const double rgb[6][3] = {{255, rise, 0}, {fall, 255, 0}, {0, 255, rise},
                              {0, fall, 255}, {rise, 0, 255}, {255, 0, fall}};
    for (int c = 0; c < 3; c++)
        color[c] = (uint8_t)lrint(rgb[(int)hue][c]);
}

static bool on_hand(struct spot p)
{
    return p.score >= visible && p.x > 0.01 && p.y > 0.01;
}

static void draw_hand(const struct canvas *canvas, const struct spot *hand, int32_t stick)
{
    static const uint8_t blue[3] = {0, 0, 255};
    for (int e = 0; e < HAND_EDGES; e++) { /* five fingers of four bones from the wrist, point 0 */
        const struct spot a = hand[e % 4 == 0 ? 0 : e], b = hand[e + 1];
        uint8_t color[3];
        rainbow(e, color);
        const struct canvas colored = with_color(*canvas, color, 1);
        if (on_hand(a) && on_hand(b))
            draw_line(&colored, (int32_t)a.x, (int32_t)a.y, (int32_t)b.x, (int32_t)b.y, stick);
    }
    const struct canvas colored = with_color(*canvas, blue, 1);
    for (int i = 0; i < HAND_POINTS; i++)
        if (on_hand(hand[i]))
            draw_disc(&colored, (int32_t)hand[i].x, (int32_t)hand[i].y, stick);
}

/* A point far outside is drawn no differently at three canvases' distance, and costs less. */
static double near(double value, uint32_t side)
{
    return fmin(fmax(value, -2.0 * side), 3.0 * side);
}

void pose_draw(const struct pose *pose, struct frame_size from, struct frame_size size,
               uint8_t *rgb)
{
    struct spot spot[POSE_POINTS];
    const uint32_t side = size.width < size.height ? size.width : size.height;
    const int32_t stick = (int32_t)(side / 200) > 2 ? (int32_t)(side / 200) - 1 : 1;
    const int32_t hand_stick = stick / 2 > 1 ? stick / 2 : 1;
    const struct canvas canvas = {rgb, size, {0}};
    memset(rgb, 0, (size_t)3 * size.width * size.height);
    for (int i = 0; i < POSE_POINTS; i++)
        spot[i] = (struct spot){near((double)pose->x[i] * size.width / from.width, size.width),
                                near((double)pose->y[i] * size.height / from.height, size.height),
                                pose->score[i]};
    draw_body(&canvas, spot, stick);
    draw_hand(&canvas, spot + LEFT_HAND, hand_stick);
    draw_hand(&canvas, spot + RIGHT_HAND, hand_stick);
}

bool pose_face_box(const struct pose *pose, struct frame_size size, struct frame_box *box_out)
{
    double x0 = INFINITY, x1 = -INFINITY, y0 = INFINITY, y1 = -INFINITY;
    for (int i = FACE_FIRST; i < FACE_END; i++) {
        x0 = fmin(x0, (double)pose->x[i]);
        x1 = fmax(x1, (double)pose->x[i]);
        y0 = fmin(y0, (double)pose->y[i]);
        y1 = fmax(y1, (double)pose->y[i]);
    }
    const double grow = sqrt(1.3) - 1, dx = (x1 - x0) * grow / 2, dy = (y1 - y0) * grow / 4;
    const struct frame_box box = {(int32_t)fmax(x0 - dx, 0), (int32_t)fmax(y0 - 3 * dy, 0),
                                  (int32_t)fmin(x1 + dx, size.width),
                                  (int32_t)fmin(y1 + dy, size.height)};
    if (box.x1 <= box.x0 || box.y1 <= box.y0)
        return false;
    *box_out = box;
    return true;
}
