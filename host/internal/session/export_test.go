package session

import "context"

// Loaded tells how many sessions are in memory.
func (s *Service) Loaded(ctx context.Context) (n int, err error) {
	for _, sh := range s.shards {
		err = s.await(ctx, sh, func() error {
			n += len(sh.sessions)
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	return n, nil
}
