package twiliotest

import (
	"cmp"
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// attributeIs is the one kind of expression that is understood.
var attributeIs = regexp.MustCompile(`^\s*(\w+)\s*==\s*(?:"([^"]*)"|'([^']*)')\s*$`)

// task is a Task resource.
type task struct {
	AccountSid            string    `json:"account_sid"`
	WorkspaceSid          string    `json:"workspace_sid"`
	WorkflowSid           string    `json:"workflow_sid"`
	TaskQueueSid          string    `json:"task_queue_sid"`
	TaskChannelUniqueName string    `json:"task_channel_unique_name"`
	Sid                   string    `json:"sid"`
	Age                   int       `json:"age"`
	AssignmentStatus      string    `json:"assignment_status"`
	Attributes            string    `json:"attributes"`
	Priority              int       `json:"priority"`
	Reason                *string   `json:"reason"`
	Timeout               int       `json:"timeout"`
	DateCreated           timestamp `json:"date_created"`
	DateUpdated           timestamp `json:"date_updated"`
	URL                   string    `json:"url"`
}

// open tells whether somebody has, or will have, the task.
func (t *task) open() bool {
	return t.AssignmentStatus == "pending" || t.AssignmentStatus == "assigned"
}

func (t *task) age() int { return int(time.Since(time.Time(t.DateCreated)).Seconds()) }

func (t *task) shown(r *request) *task {
	shown := *t
	shown.Age = t.age()
	shown.URL = r.link("/taskrouter/v1/Workspaces/" + WorkspaceSid + "/Tasks/" + t.Sid)
	return &shown
}

func (s *Simulator) fetchWorkspace(r *request) (int, any) {
	if r.PathValue("workspace") != WorkspaceSid {
		return r.notFound()
	}
	return http.StatusOK, map[string]any{
		"account_sid": AccountSid, "sid": WorkspaceSid, "friendly_name": "Flex Task Assignment", "url": r.link(r.URL.Path),
	}
}

func (s *Simulator) fetchWorkflow(r *request) (int, any) {
	if r.PathValue("workspace") != WorkspaceSid || r.PathValue("sid") != WorkflowSid {
		return r.notFound()
	}
	return http.StatusOK, map[string]any{
		"account_sid": AccountSid, "workspace_sid": WorkspaceSid, "sid": WorkflowSid, "friendly_name": "Assign to Anyone", "url": r.link(r.URL.Path),
	}
}

func (s *Simulator) listTasks(r *request) (int, any) {
	if r.PathValue("workspace") != WorkspaceSid {
		return r.notFound()
	}
	var found []*task
	if expression := r.form.Get("EvaluateTaskAttributes"); expression != "" {
		parts := attributeIs.FindStringSubmatch(expression)
		if parts == nil {
			return invalid("EvaluateTaskAttributes is not understood here: %s", expression)
		}
		found = s.tasksWith(parts[1], parts[2]+parts[3])
	} else {
		for _, t := range s.tasks {
			found = append(found, t)
		}
	}
	shown := []*task{}
	for _, t := range found {
		statuses := r.form["AssignmentStatus"]
		if (len(statuses) == 0 || slices.Contains(statuses, t.AssignmentStatus)) &&
			cmp.Or(r.form.Get("WorkflowSid"), WorkflowSid) == t.WorkflowSid && cmp.Or(r.form.Get("TaskQueueSid"), TaskQueueSid) == t.TaskQueueSid {
			shown = append(shown, t.shown(r))
		}
	}
	slices.SortFunc(shown, func(a, b *task) int {
		return cmp.Or(time.Time(a.DateCreated).Compare(time.Time(b.DateCreated)), strings.Compare(a.Sid, b.Sid))
	})
	switch order := r.form.Get("Ordering"); order {
	case "", "DateCreated:asc":
	case "DateCreated:desc":
		slices.Reverse(shown)
	default:
		return invalid("There is no ordering %q here", order)
	}
	return list(s, r, "tasks", shown, maxLongPage, func(t *task) string { return t.Sid })
}

// tasksWith returns the tasks with a text among their attributes.
func (s *Simulator) tasksWith(name, value string) (found []*task) {
	if name == "conversationSid" { // asked for each chat: no search
		if c := s.conversations[value]; c != nil {
			found = c.tasks
		}
		return found
	}
	for _, t := range s.tasks {
		var attributes map[string]any
		_ = json.Unmarshal([]byte(t.Attributes), &attributes) // which the simulator has written
		if attributes[name] == value {
			found = append(found, t)
		}
	}
	return found
}

func (s *Simulator) fetchTask(r *request) (int, any) {
	t := s.tasks[r.PathValue("task")]
	if t == nil || r.PathValue("workspace") != WorkspaceSid {
		return r.notFound()
	}
	return http.StatusOK, t.shown(r)
}

// statistics are a queue's.
func (s *Simulator) statistics(r *request) (int, any) {
	if r.PathValue("workspace") != WorkspaceSid || r.PathValue("queue") != TaskQueueSid {
		return r.notFound()
	}
	if channel := r.form.Get("TaskChannel"); channel != "" && channel != "chat" {
		return invalid("There is no task channel %q", channel)
	}
	byStatus := map[string]int{"pending": 0, "reserved": 0, "assigned": 0, "wrapping": 0}
	oldest, longest, total := 0, "", 0
	for _, t := range s.tasks {
		if !t.open() {
			continue
		}
		byStatus[t.AssignmentStatus]++
		total++
		if age := t.age(); t.AssignmentStatus == "pending" && age >= oldest {
			oldest, longest = age, t.Sid
		}
	}
	return http.StatusOK, map[string]any{
		"account_sid": AccountSid, "workspace_sid": WorkspaceSid, "task_queue_sid": TaskQueueSid, "total_tasks": total,
		"total_available_workers": s.workers, "total_eligible_workers": max(s.workers, len(agents)), "tasks_by_status": byStatus,
		"tasks_by_priority": map[string]string{"0": strconv.Itoa(total)}, "longest_task_waiting_age": oldest, "longest_task_waiting_sid": longest,
		"activity_statistics": []any{}, "url": r.link(r.URL.Path),
	}
}
