package inventory

// envWords are single words of names that tell the vendor, asked when no
// pattern matches. They say what for, never whether the value is a secret.
var envWords = map[string]Resource{
	"DB":         {"database", ""},
	"PGSQL":      {"database", ""},
	"PROXYSQL":   {"database", ""},
	"FTP":        {"ssh/host", "ftp"},
	"SFTP":       {"ssh/host", "sftp"},
	"VPS":        {"ssh/host", ""},
	"DROPLET":    {"ssh/host", ""},
	"P12":        {"signing/apple", ""},
	"GPLAY":      {"store/google-play", "play.google.com"},
	"PLAYSTORE":  {"store/google-play", "play.google.com"},
	"STEAM":      {"store/steam", "steampowered.com"},
	"ITCH":       {"store/itch", "itch.io"},
	"BUTLER":     {"store/itch", "itch.io"},
	"CHROME":     {"store/chrome", "chromewebstore.google.com"},
	"FURY":       {"registry/package", "fury.io"},
	"GEMFURY":    {"registry/package", "fury.io"},
	"ACR":        {"registry/container", "azurecr.io"},
	"GCR":        {"registry/gar", "gcr.io"},
	"EKS":        {"k8s/cluster", ""},
	"AKS":        {"k8s/cluster", ""},
	"GKE":        {"k8s/cluster", ""},
	"SUPABASE":   {"paas/supabase", "supabase.com"},
	"EXPO":       {"saas/expo", "expo.dev"},
	"WPENGINE":   {"paas/wpengine", "wpengine.com"},
	"SERVERLESS": {"saas/serverless", "serverless.com"},
	"TWITTER":    {"notify/chat", "x.com"},
	"SENDGRID":   {"notify/chat", "mail"},
	"MAILGUN":    {"notify/chat", "mail"},
	"MAIL":       {"notify/chat", "mail"},
	"OPSGENIE":   {"monitoring/opsgenie", "opsgenie.com"},
	"STRIPE":     {"saas/stripe", "stripe.com"},
	"TWILIO":     {"saas/twilio", "twilio.com"},
	"CONTENTFUL": {"saas/contentful", "contentful.com"},
	"SHOPIFY":    {"saas/shopify", "shopify.com"},
	"UNITY":      {"saas/unity", "unity.com"},
	"LINEAR":     {"saas/linear", "linear.app"},
	"NOTION":     {"saas/notion", "notion.com"},
	"TRELLO":     {"saas/trello", "trello.com"},
	"ZAPIER":     {"saas/zapier", "zapier.com"},
	"AIRTABLE":   {"saas/airtable", "airtable.com"},
	"ATTIC":      {"build/attic", ""},
	"NGROK":      {"network/ngrok", "ngrok.com"},
	"WIREGUARD":  {"network/vpn", "wireguard"},
	"AKEYLESS":   {"secrets-manager/akeyless", "akeyless.io"},
}

// wordUse says what the words of a name are for.
func wordUse(tok []string) Resource {
	for _, t := range tok {
		if res, ok := envWords[t]; ok {
			return res
		}
	}
	return Resource{}
}
