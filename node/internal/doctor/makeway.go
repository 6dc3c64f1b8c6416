package doctor

import (
	"fmt"
	"time"

	"github.com/moot-net/moot/node/internal/volunteer"
)

// makeWay says what can be seen of what this machine is used for, and so which
// settings of [work] can have an effect.
func (d *doctor) makeWay() {
	if d.Observe == nil {
		return
	}
	s, err := d.Config.Work.Settings()
	if err != nil {
		d.fail("work", err.Error(), "repair the file")
		return
	}
	v := d.Observe(volunteer.Everything())
	blind := volunteer.Blind(s, v)
	tell := func(name string, sight volunteer.Sight, seen string) {
		why, unseen := v.Unseen[sight]
		switch {
		case unseen && blind[sight] != "":
			d.warn(name, why+fmt.Sprintf("; %s has no effect", sight),
				fmt.Sprintf(`name games and the like in work.exclusive_apps, or turn it off: "mootd config set %s %s"`, sight, off[sight]))
		case unseen:
			d.ok(name, "%s; no setting needs it", why)
		default:
			d.ok(name, "%s", seen)
		}
	}
	idle := ""
	if v.Idle != nil {
		idle = fmt.Sprintf("nobody has touched this computer for %v", v.Idle.Round(time.Second))
	}
	tell("idle", volunteer.SightIdle, idle)
	tell("fullscreen", volunteer.SightFullscreen, yes(v.Fullscreen, "something fills the screen", "nothing fills the screen"))
	tell("gamemode", volunteer.SightGame, yes(v.GameMode, "a game runs", "no game runs"))
	tell("battery", volunteer.SightBattery, yes(v.Battery, "it runs on battery", "it is plugged in"))
	heat := "see the device"
	for _, t := range v.Temps {
		heat = fmt.Sprintf("%s has %d °C", t.Device, t.Celsius)
	}
	tell("heat", volunteer.SightHeat, heat)
}

// off are the values with which a setting needs nothing.
var off = map[volunteer.Sight]string{
	volunteer.SightIdle: "0", volunteer.SightFullscreen: "false", volunteer.SightGame: "false", volunteer.SightBattery: "true",
	volunteer.SightHeat: "0",
}

func yes(b *bool, is, isNot string) string {
	if b != nil && *b {
		return is
	}
	return isNot
}
