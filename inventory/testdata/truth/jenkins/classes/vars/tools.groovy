@Field Map OLD_NAMES = [cloudFoundry: [credentialsId: 'cfCredentialsId', space: 'cfSpace']]

def notifyTeam(Map args = [:]) {
  slackSend(
    [
      channel: args.channel,
      tokenCredentialId: args.tokenCredentialId
        ?: args.other
        ?: 'slack-token',
    ] + args
  )
}

def inContainer(String command) {
  def vars = "-e AWS_ACCESS_KEY_ID -e AWS_SECRET_ACCESS_KEY"
  def run = "docker run --rm ${vars} tools sh -c \"${command}\""
  return steps.sh(script: run, returnStatus: true)
}

def withAll(List<String> names, Closure body) {
  def bound = names.collect { n -> string(credentialsId: n, variable: n) }
  withCredentials(bound) { body() }
}

def cluster() {
  openshift.withCluster() { openshift.apply('x') }
  openshift.withCluster('prod', 'prod-deployer') { openshift.apply('y') }
}

def find(id) {
  return com.cloudbees.plugins.credentials.CredentialsProvider.lookupCredentials(Credentials.class, Jenkins.instance, null, null)
}
